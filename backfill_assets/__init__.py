"""The daily crypto market-data pipeline: ticks from Tardis, candles, verdicts, BigQuery.

Every day at 09:00 UTC yesterday's files are fetched into a Parquet lake (``tardis``, ``lake``, ``ticks``),
become candles (``candles``), are judged by what the decoding pass counted (``quality``), and what passes is
published to the warehouse, one atomic day partition at a time (``warehouse``). Any past range runs the same
way. Folders are stages of the data; the same file names mean the same thing in each of them: ``assets`` are
the nodes, ``checks`` the promises, ``schemas`` the columns, and the rest is plain Python.
"""
