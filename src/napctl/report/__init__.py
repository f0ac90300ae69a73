"""A run in words, as a table, a page, a file.

Stands on `experiment` and `stats`. May be imported by `cli`.
"""
