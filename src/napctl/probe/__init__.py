"""The BPF programs that count polls and deliveries, beside their loaders and the readers of their counters."""

from napctl.probe.deliveries import DeliveryProbe
from napctl.probe.loading import ProbeUnavailable
from napctl.probe.napi import Probe, ProbeReader

__all__ = ["DeliveryProbe", "Probe", "ProbeReader", "ProbeUnavailable"]
