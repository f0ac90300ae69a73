"""Promises of `napctl.model`."""
