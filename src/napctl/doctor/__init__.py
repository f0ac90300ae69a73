"""What costs or endangers here: one rule, one function, its source cited.

Pure: stands on `model` alone. May be imported by `cli`.
"""
