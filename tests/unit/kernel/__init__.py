"""Promises of `napctl.kernel`."""
