"""Protection against overload: what a flood of packets takes from a CPU is given back to its processes.

Pure: ladder.py, which says what is to be done next. The rest looks (flood.py), acts (protection.py), and keeps running.
"""
