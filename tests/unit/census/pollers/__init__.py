"""Promises of `napctl.census.pollers`."""
