"""Promises of `napctl.census`, on the running kernel."""
