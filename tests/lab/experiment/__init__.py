"""Promises of `napctl.experiment`, on the running kernel."""
