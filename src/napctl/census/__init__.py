"""Who takes which packets, and how: each queue by its ways, each program that goes past the kernel or spins.

Nothing is changed by looking.
"""
