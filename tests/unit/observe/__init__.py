"""Promises of `napctl.observe`."""
