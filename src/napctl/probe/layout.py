"""The counters of napi.bpf.c as ctypes sees them: a mirror of its struct counters, to be changed together."""

import ctypes

from napctl.model.histogram import BUCKETS

__all__ = ["SLOTS", "Counters"]


SLOTS = POLLERS = 1024
CPUS = 8192
_WHO = 4
_NAME = 16
_u32, _u64, _name = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_char * _NAME


class Histogram(ctypes.Structure):
    """struct histogram: polls by packets found."""

    _fields_ = (("counts", _u64 * BUCKETS), ("packets_above", _u64))


class Slot(ctypes.Structure):
    """struct slot: one NAPI instance."""

    _fields_ = (
        ("napi", _u64),
        ("dev", _u64),
        ("net", _u64),
        ("napi_id", _u32),
        ("index", _u32),
        ("ifindex", _u32),
        ("netns", _u32),
        ("name", _name),
        ("polls", Histogram * _WHO),
        ("_padding", ctypes.c_char * 104),
    )


class Cpu(ctypes.Structure):
    """struct cpu; the private part is what the program remembers between entry and exit."""

    _fields_ = (
        ("interrupts", _u64),
        ("interrupt_ns", _u64),
        ("net_rx_softirqs", _u64),
        ("net_rx_softirq_ns", _u64),
        ("_private", _u64 * 4),
    )


class PollerEntry(ctypes.Structure):
    """struct poller: busy polls of one instance by one process."""

    _fields_ = (
        ("empty", _u64),
        ("fruitful", _u64),
        ("packets", _u64),
        ("name", _name),
        ("_padding", ctypes.c_char * 24),
    )


class Counters(ctypes.Structure):
    """struct counters, the program's one global variable."""

    _fields_ = (
        ("cpus", Cpu * CPUS),
        ("slots", Slot * SLOTS),
        ("pollers", PollerEntry * POLLERS),
        ("poller_keys", _u64 * POLLERS),
        ("published", _u32 * SLOTS),
        ("publications", _u32),
        ("lost_polls", _u64),
        ("lost_pollers", _u64),
        ("_padding", ctypes.c_char * 104),
    )
