"""From a machine, a window and a goal to a plan; its file, bounds and export; from a plan to a transaction.

All but `apply` is pure and stands on `model` alone; `apply` stands on `change` and `observe`. May be imported by
`verify`, `experiment` and `cli`.
"""
