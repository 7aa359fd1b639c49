"""The rehearsal: real runs of the pipeline under faults, and which promises they keep.

Runs are processes as users start them, against a stand-in for Tardis on loopback. ``scenarios`` lists what
happens to them, ``house`` is where they live, ``model`` the outcome, ``report`` shows it.
"""
