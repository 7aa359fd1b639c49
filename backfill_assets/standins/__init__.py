"""Stand-ins: real servers on loopback that answer as the vendors do, for the quickstart and for tests.

Nothing of the pipeline imports this package; it is reached over HTTP like the vendor itself. ``market`` and
``directory`` are two sources of data, ``tardis`` serves either of them, ``faults`` spoils answers on request,
``run`` puts the server behind a command.
"""
