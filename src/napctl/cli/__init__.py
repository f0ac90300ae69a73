"""The command line: one module per command. Arguments in; values out as a table, or as JSON (`text/`: values in words).

Stands on every room, and nothing stands on it.
"""
