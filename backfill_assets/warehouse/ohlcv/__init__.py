"""The OHLCV table: candles in a relational database, for services that read them by key.

An optional target of publication beside the warehouse. ``table`` says what its rows are, ``target`` opens the
database that the settings name, ``writing`` makes a day of it what the lake says.
"""
