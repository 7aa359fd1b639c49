"""Progress of backfills: what was asked for, how far it is, what came of it, and what it will cost.

A job is one of Dagster's own backfills together with what Dagster does not keep: the request, who made it and
why, and the last progress that was seen. Layers, each knowing those before it:

- ``model``: what crosses the API, and nothing else.
- ``store``, ``migrations``: the jobs' tables, beside Dagster's own.
- ``reader``: the only reader of Dagster's records; ``truth``: what the lake and the ledger say of a day.
- ``tracking``: a job's progress as a pure function of these; ``refresh`` keeps the stored progress fresh.
- ``service``: what the API, the page and the command line call.
- ``api``, ``events``, ``metrics``, ``problems``, ``server``: HTTP.
"""
