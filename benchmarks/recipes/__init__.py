"""csv.gz of trades to Parquet and candles, as skilled users of other libraries write it."""
