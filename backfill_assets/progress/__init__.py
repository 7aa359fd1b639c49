"""Progress of backfills: the request, how far it is, the outcome of each day, and the cost before the start.

A job is one of Dagster's own backfills, whoever started it: through the API, the page or the command line, by
the job ``range``, or in Dagster's UI. Its request is kept as its tags, and nothing is kept beside it. Layers,
each knowing those before it:

- ``model``: the models of the API, and nothing else.
- ``request_tags``, ``facts``, ``reader``: the only reader of Dagster's records; ``stored_days``: days as
  the lake and the ledger have them, ``day_cache`` keeps them for a while.
- ``tracking``: a job as a pure function of these; ``records`` reads on for one job, ``statuses`` for all.
- ``service``: the methods that the API, the page and the command line call; ``request`` checks requests.
- ``api``, ``events``, ``metrics``, ``problems``, ``server``: HTTP.
"""
