"""The lake: immutable Parquet files named by their content, and small JSON documents that say which count.

``paths`` names every place, ``store`` says what a store promises (``local`` and ``gcs`` keep the promise),
``copies`` keeps the files that were fetched from a bucket, ``ranges`` reads parts of others,
``documents`` reads and changes JSON documents by compare-and-swap, ``manifests`` are the documents by which
data becomes visible. What the rows mean is decided further down the stream.
"""
