"""The test bed: network namespaces, veth, real servers, real load. Nothing outside its own namespaces is changed.

Stands on `kernel` and `model`. May be imported by `load`, `experiment` and `cli`.
"""
