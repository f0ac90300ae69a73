"""Promises of `napctl.probe`, on the running kernel."""
