"""Protection against overload: what a flood of packets takes from a CPU is given back to its processes.

storm_rules.py is pure, storm_facts.py reads what it judges, storm_control.py acts, after_reset.py sets again what that
took.
"""
