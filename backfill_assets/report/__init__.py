"""Reports for people: one page per day and one per month, made from the lake alone.

``model`` and ``month`` have the content of a page, ``evidence``, ``minutes`` and ``silences`` its content on
a feed, ``comparisons`` candles beside others, ``actions`` the remedies. ``page`` and ``heat_map`` render a
page, ``publish`` stores it, and ``assets`` has the pipeline write it.
"""
