"""Giving a running server IRQ suspension from outside: examine it, judge whether suspension fits, attach, let go."""
