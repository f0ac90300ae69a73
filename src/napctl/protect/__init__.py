"""Protection against overload: what a flood of packets takes from a CPU is given back to its processes.

ladder.py is pure, and says what is to be done next; flood_reader.py looks, protection.py acts. Of storm control,
storm_rules.py is pure, storm_facts.py reads what it judges, storm_control.py acts.
"""
