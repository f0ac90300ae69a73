"""Promises of `napctl.report`."""
