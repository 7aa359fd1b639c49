"""The page of backfills at ``/``: running, stuck and finished jobs, good days; plan, start, cancel.

The server renders HTML, and htmx, which is in ``static``, replaces parts of it. Nothing is built or requested
from another host: the content security policy lets the browser load from this server only.

- ``view``: the words and groups of the templates, as pure functions of the models of ``progress.model``.
- ``render``: templates, static files and the headers of every page.
- ``routes``: the addresses; each calls ``service`` and renders its answer.

Colors and type are those of the day's report, whose style sheet is included and not copied.
"""
