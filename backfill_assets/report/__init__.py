"""What a person looks at: one page per day and one per month, made from the lake alone.

``model`` and ``month`` say what a page shows, ``evidence``, ``minutes`` and ``silences`` what it shows of a
feed, ``comparisons`` how candles stand beside others, ``actions`` what to do; ``page`` and ``heat_map`` say
how it looks, ``publish`` where it lies; ``assets`` has the pipeline write it.
"""
