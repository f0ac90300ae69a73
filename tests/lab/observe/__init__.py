"""Promises of `napctl.observe`, on the running kernel."""
