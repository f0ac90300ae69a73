"""Promises of `napctl.attach`."""
