"""Promises of `napctl.plan`, on the running kernel."""
