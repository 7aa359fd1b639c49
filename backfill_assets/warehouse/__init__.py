"""The tables that people query, and how a day of them is replaced.

A day partition is replaced in one atomic step or not at all, by whoever claimed it last, and is then read
back and compared with the lake. ``tables`` says what a table is, ``protocol`` what a warehouse promises,
``duckdb`` and ``bigquery`` keep the promise, ``publish`` uses it; the ledger of ``ledger`` decides between
publishers.
"""
