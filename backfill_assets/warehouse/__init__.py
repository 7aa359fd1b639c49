"""The tables that people query, and the replacement of a day of them.

A day partition is replaced in one atomic step or not at all, by the publisher with the latest claim. It is
then read back and compared with the lake. ``tables`` defines a table, and ``protocol`` the promises of a
warehouse. ``duckdb`` and ``bigquery`` keep them, and ``publish`` relies on them. The ledger in ``ledger``
decides between publishers.
"""
