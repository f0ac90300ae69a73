"""Promises of `napctl.kernel`, on the running kernel."""
