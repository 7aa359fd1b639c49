"""Stage ``reference``: the comparison of the day's candles with the candles of other sources.

It runs after publishing, so no source can delay or stop a day. ``sources`` lists the sources of the settings,
``ccxt_source`` and ``massive_source`` ask them, ``fetched`` stores the answers, ``conventions`` says how a
source makes its candles, ``compare`` compares a market, and ``day`` compares a day.
"""
