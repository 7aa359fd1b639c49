"""The rehearsal: real runs of the pipeline under faults, and the promises that they keep or break.

Runs are processes as users start them, against a stand-in for Tardis on loopback. ``scenarios`` lists the
faults, ``house`` holds the files of a run, ``model`` the outcome, and ``report`` shows it.
"""
