"""Stand-ins: real servers on loopback that answer as the vendors do, for the quickstart and for tests.

The pipeline does not import this package; it reaches the stand-in over HTTP like the vendor itself.
``market`` and ``directory`` are two sources of data, ``tardis`` serves either of them, ``faults`` spoils
answers on request, and ``run`` runs a command with the server behind it.
"""
