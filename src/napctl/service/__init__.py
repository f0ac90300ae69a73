"""The service: a policy that is kept true for months, and what it shows of that.

Imported by `cli` alone."""
