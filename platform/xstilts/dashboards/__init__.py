"""Pages over a store that is only read: how far a job is, and its transfer table while it fills.

A layer of its own, between `api` and the two that it shows: `execute` says what becomes of steps, `report`
makes the table, and neither may import the other. Nothing is computed here that one of them computes.
"""
