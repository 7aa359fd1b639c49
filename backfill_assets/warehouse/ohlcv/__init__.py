"""The OHLCV table: candles in a relational database, for services that read them by key.

This is a third implementation of ``Warehouse``, optional and for this one table. ``table`` describes the
table in the database, ``database`` opens the database that the settings name, and ``warehouse`` replaces days
of the table.
"""
