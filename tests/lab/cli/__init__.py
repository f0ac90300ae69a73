"""Promises of `napctl.cli`, on the running kernel."""
