"""Promises of `napctl.lab`, on the running kernel."""
