"""Progress of backfills: what was asked for, how far it is, what came of it, and what it will cost.

A job is one of Dagster's own backfills, whoever started it: through the API, the page or the command line, by
the job ``range``, or in Dagster's UI. Its request is kept as its tags, and nothing is kept beside it. Layers,
each knowing those before it:

- ``model``: what crosses the API, and nothing else.
- ``request_tags``, ``facts``, ``reader``: the only reader of Dagster's records; ``stored_days``: days as
  the lake and the ledger have them, ``day_cache`` keeps them for a while.
- ``tracking``: a job as a pure function of these; ``records`` reads on for one job, ``statuses`` for all.
- ``service``: what the API, the page and the command line call.
- ``api``, ``events``, ``metrics``, ``problems``, ``server``: HTTP.
"""
