"""Promises of `napctl.probe`."""
