"""Experiments: treatments × loads × rounds, what is measured in each cell, and the directory that keeps it.

Stands on `attach`, `plan`, `load`, `stats` and all below. May be imported by `report` and `cli`.
"""
