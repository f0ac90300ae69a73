"""Promises of `napctl.experiment`."""
