"""Plain data and arithmetic: frozen, serialisable values. No input or output.

Stands on nothing else of napctl. May be imported by every room.
"""
