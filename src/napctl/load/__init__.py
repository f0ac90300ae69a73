"""What an experiment loads a server with: the lab's load, a command (`tools/`: one module for each tool), live traffic.

Stands on `lab`, `observe`, `probe` and `kernel`. May be imported by `experiment`, `report` and `cli`.
"""
