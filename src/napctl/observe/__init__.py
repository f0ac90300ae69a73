"""Observing: how the machine is set (a Machine), and what happens on it over time (a Window)."""
