"""Progress of backfills: the request, its progress, the outcome of each day, and the cost before the start.

A job is one of Dagster's own backfills, started through the API, the page, the command line, the job
``range`` or Dagster's UI. Its request is kept as its tags, and nothing is kept outside Dagster. Each layer
knows only the layers before it:

- ``model``: the models of the API, and nothing else.
- ``request_tags``, ``facts``, ``reader``: the only reader of Dagster's records; ``stored_days``: days by the
  lake and the ledger, which ``day_cache`` keeps for a while.
- ``tracking``: a job as a pure function of these; ``records`` reads one job incrementally, ``statuses`` all.
- ``service``: the methods that the API, the page and the command line call; ``request`` checks requests.
- ``api``, ``events``, ``metrics``, ``problems``, ``server``: HTTP.
"""
