"""What a person looks at: one page per day and one per month, made from the lake alone.

``model`` and ``month`` say what a page shows, ``evidence`` and ``minutes`` what it shows of a feed, ``page``
how it looks, ``publish`` where it lies; ``assets`` has the pipeline write it.
"""
