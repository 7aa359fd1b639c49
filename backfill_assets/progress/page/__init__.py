"""The page of backfills at ``/``: running, stuck and finished jobs, good days; plan, start, cancel.

Server-rendered HTML; htmx, which lies in ``static``, replaces parts of it. Nothing is built and nothing is
asked of another host: the content security policy lets the browser load from this server alone.

- ``view``: the words and groups of the templates, as pure functions of the models of ``progress.model``.
- ``render``: templates, static files and the headers that every page goes out with.
- ``routes``: the addresses; each calls ``service`` and renders its answer.

Colors and type are those of the day's report, whose style sheet is included and not copied.
"""
