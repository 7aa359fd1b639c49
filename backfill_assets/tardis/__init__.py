"""The source: tardis.dev behind its official client.

``client`` fetches. ``attempts`` makes one request and classifies its failure. ``pacing`` limits the rate.
``metadata`` describes the vendor's answers. ``fallback`` replaces instruments that a key does not cover.
``symbols`` lists the feeds that a day must have. ``resource`` gives the client to Dagster. ``columns`` lists
the columns of the files.
"""
