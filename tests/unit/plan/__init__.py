"""Promises of `napctl.plan`."""
