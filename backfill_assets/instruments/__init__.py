"""Instruments: one row per instrument and exchange, as listed and as valid on a day."""
