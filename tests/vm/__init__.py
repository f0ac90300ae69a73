"""Tests that need real NICs. They run in the guest of scripts/run-in-vm, as root of a kernel of their own."""
