"""Promises of `napctl.lab`."""
