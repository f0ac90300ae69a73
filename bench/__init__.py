"""What napctl costs, as ratios within one run: `make bench`."""
