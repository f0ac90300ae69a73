"""Promises kept on the running kernel, with real servers."""
