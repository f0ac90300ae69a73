"""Plain data and arithmetic: frozen, serialisable values. No input or output, and no import of the rest of napctl."""
