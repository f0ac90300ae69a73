"""Promises of `napctl.verify`, on the running kernel."""
