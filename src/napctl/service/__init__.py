"""The service: a policy that stays true, and what is seen of it from outside.

Stands on `attach`, `doctor`, `plan` and all below. May be imported by `cli`.
"""
