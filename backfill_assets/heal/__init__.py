"""Healing: a second source is asked for the trades of missing ids, and its answers are kept as receipts.

``holes`` tells which ids to ask for, ``exchange_trades`` and ``archive`` ask, ``conclusions`` says what an
answer proves, ``receipts`` keeps answers and concludes from them again, ``healing`` does it for a feed's day.
What follows for a verdict is in ``quality.receipts``, and how rows get into a file in ``ticks.healed``.
"""
