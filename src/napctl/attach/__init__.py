"""Giving a running server IRQ suspension from outside: a target, inspected, judged, attached, followed.

Stands on `change`, `observe`, `stats` and all below. May be imported by `experiment` and `cli`.
"""
