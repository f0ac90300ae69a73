"""Promises of `napctl.change`, on the running kernel."""
