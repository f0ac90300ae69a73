"""Proving: experiments in interleaved rounds, their summary, and what may be read from it."""
