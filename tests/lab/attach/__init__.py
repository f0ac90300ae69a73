"""Promises of `napctl.attach`, on the running kernel."""
