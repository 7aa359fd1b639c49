"""Is this day good, and how do we know: scores, verdicts and their evidence.

Scores are pure functions of a feed's profile, its context and the thresholds; nothing here reads rows.
``day`` is the only module that reads and writes the lake.
"""
