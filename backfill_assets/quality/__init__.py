"""Whether a day is good, and the proof of it: scores, verdicts and their evidence.

Scores are pure functions of a feed's profile, its context and the thresholds. Only ``witnesses`` reads rows,
and ``settle`` alone writes the settled day.
"""
