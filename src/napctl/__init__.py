"""napctl: see, change and prove how a Linux machine takes its packets."""

__version__ = "0.2.0"
