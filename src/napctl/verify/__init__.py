"""Does the device obey, on the wire: windows with and without each setting, in turns, and what they say of it.

Stands on `plan`, `change`, `observe`, `stats` and all below. May be imported by `cli`.
"""
