"""For all tests."""

from hypothesis import settings

# How long one example takes is the machine's business, not a promise of napctl.
settings.register_profile("napctl", deadline=None)
settings.load_profile("napctl")
