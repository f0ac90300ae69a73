"""Promises that need no kernel."""
