"""Promises of `napctl.change`."""
