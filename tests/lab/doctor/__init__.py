"""Promises of `napctl.doctor`, on the running kernel."""
