"""The lake: immutable Parquet files named by their content, and small JSON documents that say which count.

``paths`` names every place. ``store`` defines the promises of a store (``local`` and ``gcs`` keep them).
``copies`` keeps the files that were fetched from a bucket; ``ranges`` reads parts of others. ``documents``
reads and changes JSON documents by compare-and-swap; ``manifests`` are the documents by which data becomes
visible. The meaning of the rows is decided downstream.
"""
