"""The OHLCV table: candles in a relational database, for services that read them by key.

A third implementation of ``Warehouse``, optional and for this one table. ``table`` describes the table as the
database has it, ``database`` opens the one that the settings name, ``warehouse`` replaces days of the table.
"""
