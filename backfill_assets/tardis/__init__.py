"""The source: tardis.dev behind its official client.

``client`` fetches, ``attempts`` is one request and what its failure means, ``pacing`` limits the rate,
``metadata`` describes what the vendor answers, ``fallback`` stands in for instruments that a key does not
cover, ``symbols`` says which feeds a day must have, ``resource`` hands the client to Dagster, ``columns``
lists what the files hold.
"""
