"""What may be said of measurements: paired comparisons, verdicts, intervals that hold at every look.

Pure: stands on `model` alone. May be imported by everything above `observe` and `change`.
"""
