"""Ticks: the vendor's compressed CSV files become typed Parquet and a profile, in one streaming pass.

``decode`` is the entry point. It drives ``blocks`` (inflate), ``kernels`` (the fast parser),
``reference_parser`` (correct for every line, used where the fast one declines), ``rowgroups`` (Arrow and
Parquet) and ``profile`` with ``profile_kernels`` (the evidence). ``partials`` makes partial candles of a
stored file, and ``restatements`` compares versions of a file by them. Functions that use numba import it;
importing this package does not.
"""
