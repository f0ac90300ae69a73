"""Promises of `napctl.stats`."""
