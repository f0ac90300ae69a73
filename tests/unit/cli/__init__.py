"""Promises of `napctl.cli`."""
