"""Where Linux tells energy: one module per interface, all behind the Zone of `zones`, in the order of `sources`."""
