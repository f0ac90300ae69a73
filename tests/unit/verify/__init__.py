"""Promises of `napctl.verify`."""
