"""Candles: mergeable partials per file, merged across midnight, rolled up to every timeframe.

A file holds what *arrived* on a day, a candle what was *traded* in a bucket. So each file gives partial
candles of the base timeframe, also for the neighbours' first and last minutes, and a day of candles is the
merge of the partials of three files.
"""
