"""Promises of `napctl.census`."""
