"""Promises of `napctl.load`."""
