"""Linux as it is: one module per interface, typed values in and out. No policy, no printing, no retries.

Stands on `model` alone; a missing thing is None, never 0. May be imported by every room but the pure ones.
"""
