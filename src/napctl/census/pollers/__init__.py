"""Programs that take packets past the kernel's stack, or spin: which, by what evidence, and what of it is work.

One module for each way of doing so, with what it looks for and its source; `watch.py` looks for all over a window.
"""
