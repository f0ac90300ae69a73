"""Promises of `napctl.census` about real programs."""
