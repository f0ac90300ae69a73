"""Promises of `napctl.load`, on the running kernel."""
