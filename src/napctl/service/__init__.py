"""What keeps a policy true: its file, and what of the machine differs from it.

A policy is values of model/policy.py. Here nothing is changed but through the transactions of other rooms.
"""
