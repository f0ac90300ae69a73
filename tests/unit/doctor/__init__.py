"""Promises of `napctl.doctor`."""
