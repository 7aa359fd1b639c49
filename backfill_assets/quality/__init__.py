"""Is this day good, and how do we know: scores, verdicts and their evidence.

Scores are pure functions of a feed's profile, its context and the thresholds. Only ``witnesses`` reads rows,
and ``settle`` alone writes the settled day.
"""
