"""The BPF program that counts polls, beside its loader and the reader of its counters."""

from napctl.probe.napi import Probe, ProbeUnavailable

__all__ = ["Probe", "ProbeUnavailable"]
