"""Which way of taking packets fits the load that there is: the decision alone, from windows that others measure.

Pure and deterministic: no clock, no input or output. Stands on `model` alone; may be imported by `attach` and above.
"""
