"""Healing: ask a second source for the trades of missing ids, and store its answers as receipts.

``holes`` selects the ids to ask for, ``exchange_trades`` and ``archive`` ask, ``conclusions`` derives the
proof from an answer, ``receipts`` stores answers and repeats conclusions, ``healing`` heals a feed's day.
``quality.receipts`` applies receipts to a verdict, and ``ticks.healed`` adds the rows to a file.
"""
