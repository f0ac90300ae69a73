"""Observing: how the machine is set (a Machine), what happens on it over time (a Window), what energy it takes.

Stands on `kernel`, `probe` and `model`. May be imported by `plan.apply`, `attach`, `verify`, `load`,
`experiment` and `cli`.
"""
