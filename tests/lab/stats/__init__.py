"""Promises of `napctl.stats`, on the running kernel."""
