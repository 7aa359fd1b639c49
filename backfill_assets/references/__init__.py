"""Stage ``reference``: candles of other sources, and the day's candles compared with them.

It comes after publishing, since no answer of a source may delay or stop a day. ``sources`` lists the sources
of the settings, ``ccxt_source`` and ``massive_source`` ask, ``fetched`` keeps the answers, ``conventions``
says how a source makes its candles, ``compare`` compares a market, ``day`` a day.
"""
