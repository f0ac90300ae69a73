"""Verification: windows with and without each setting, in turns, and what they say of the device."""
