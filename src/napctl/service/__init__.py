"""What keeps a policy true, and what is seen of that from outside.

A policy is values of model/policy.py. Here nothing is changed but through the transactions of other rooms.
"""
