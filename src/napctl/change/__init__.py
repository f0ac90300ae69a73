"""Changing settings so that there is always a way back: the journal, the transaction, undoing, recovery, the guard.

Stands on `kernel` and `model`. May be imported by `plan`, `attach`, `verify`, `experiment` and `cli`.
"""
