"""Candles: mergeable partials per file, merged across midnight, rolled up to every timeframe.

A file holds the trades that *arrived* on a day; a candle holds those *traded* in a bucket. So each file gives
partial candles of the base timeframe, including the last minutes of the day before and the first of the day
after. A day of candles is the merge of the partials of three files.
"""
