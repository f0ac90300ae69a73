"""Promises of `napctl.adapt`."""
