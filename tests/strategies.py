"""Any plan, any machine: what the properties of planning are tried on."""

from hypothesis import settings
from hypothesis import strategies as st

from napctl.model.cpus import cpus_text
from napctl.model.machine import (
    Coalescing,
    Device,
    DeviceDeferral,
    DimProfile,
    EpollPoller,
    Machine,
    Napi,
    Queue,
    QueueCoalescing,
    Rings,
)  # fmt: skip
from napctl.model.plan import Deferral, DevicePlan, InstanceThread, Plan, RingSizes
from napctl.model.settings import EpollParams, NapiSettings, ThreadSettings


def examples(few: int, many: int) -> int:
    """For `max_examples` where the profiles' numbers do not do: `few` in `make check`, `many` with --long."""
    return many if settings().max_examples >= 100 else few


U32 = st.integers(0, 2**32 - 1)
S32 = st.integers(0, 2**31 - 1)
DELAYS = st.sampled_from((0, 1, 3, 8, 10, 20, 50, 64, 100, 125, 150, 200, 256, 1000)) | st.integers(0, 5000)
FRAMES = st.sampled_from((0, 1, 2, 16, 32, 64, 128, 256)) | st.integers(0, 5000)
SPEEDS = st.sampled_from((10, 1000, 10_000, 25_000, 50_000, 100_000, 400_000)) | st.integers(1, 2_000_000)
GOALS = st.sampled_from(("latency", "balanced", "throughput", "efficiency"))
"""Those that set delays."""

NAMES = st.sampled_from(
    ("eth0", "eth0.100", "enp3s0f1np1", "goal", "schema", "0", "true", 'a"b\\c', "ä#=[x]")
) | st.text(st.characters(exclude_categories=("Cs", "Z"), exclude_characters="/:"), min_size=1, max_size=5).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 16 and not any(map(str.isspace, name))
)

CPUS = st.sets(st.integers(0, 300), min_size=1, max_size=9).map(cpus_text)
THREADS = st.builds(
    ThreadSettings,
    threaded=st.sampled_from(("enabled", "busy-poll")),
    nice=st.none() | st.integers(0, 19),
    cpus=st.none() | CPUS,
)
"""What a plan may ask of a thread."""
_LEVEL = st.builds(DimProfile, usecs=st.none() | U32, pkts=st.none() | U32, comps=st.none() | U32)
_PROFILE = st.none() | st.lists(_LEVEL, max_size=3).map(tuple)


def _coalescing(time: st.SearchStrategy[int], frames: st.SearchStrategy[int]) -> st.SearchStrategy[Coalescing]:
    """With every field of the kind that its name tells."""
    fields: dict[str, st.SearchStrategy[object]] = {}
    for name in Coalescing.__struct_fields__:
        if name.endswith("_profile"):
            fields[name] = _PROFILE
        else:
            value = st.booleans() if name.startswith("use_") else frames if "frames" in name else time
            fields[name] = st.none() | value
    return st.builds(Coalescing, **fields)


PLANNED_COALESCING = _coalescing(U32, U32)
DEVICE_COALESCING = st.builds(
    Coalescing,
    rx_usecs=st.one_of(DELAYS, DELAYS, DELAYS, st.none()),
    rx_max_frames=st.one_of(FRAMES, FRAMES, FRAMES, st.none()),
    tx_usecs=st.one_of(DELAYS, DELAYS, DELAYS, st.none()),
    tx_max_frames=st.one_of(FRAMES, FRAMES, FRAMES, st.none()),
    use_adaptive_rx=st.none() | st.booleans(),
    use_adaptive_tx=st.none() | st.booleans(),
)
"""What planning looks at; drivers have more, which it leaves alone."""
DEVICE_PLANS = st.builds(
    DevicePlan,
    name=NAMES,
    driver=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    bus=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    rx_queues=U32,
    tx_queues=U32,
    speed_mbps=st.none() | st.integers(1, 2**32 - 1),
    coalescing=st.none() | PLANNED_COALESCING,
    queues=st.lists(
        st.builds(QueueCoalescing, queue=U32, coalescing=PLANNED_COALESCING),
        max_size=2,
        unique_by=lambda each: each.queue,
    ).map(tuple),
    rings=st.none() | st.builds(RingSizes, rx=st.none() | U32, tx=st.none() | U32),
    deferral=st.none() | st.builds(Deferral, defer_hard_irqs=st.none() | S32, gro_flush_timeout_ns=st.none() | U32),
    threads=st.lists(
        st.builds(InstanceThread, instance=U32, thread=THREADS), max_size=2, unique_by=lambda each: each.instance
    ).map(tuple),
)
PLANS = st.builds(
    Plan,
    goal=GOALS,
    max_added_latency_ns=U32,
    devices=st.lists(DEVICE_PLANS, max_size=3, unique_by=lambda device: device.name).map(tuple),
)

_TIMERS_NS = st.sampled_from((0, 5_000, 20_000, 200_000)) | st.integers(0, 2_000_000)
_SETTINGS = st.builds(
    NapiSettings,
    defer_hard_irqs=st.none() | st.sampled_from((0, 1, 100)),
    gro_flush_timeout_ns=st.none() | _TIMERS_NS,
    irq_suspend_timeout_ns=st.none() | st.sampled_from((0, 0, 0, 20_000_000)),
    threaded=st.none() | st.sampled_from(("disabled", "enabled", "busy-poll")),
)
_DRIVERS = st.sampled_from(
    ("mlx5_core", "virtio_net", "e1000e", "igb", "igc", "ixgbe", "ixgbevf", "ena", "veth", "tun", None)
)


@st.composite
def devices(draw: st.DrawFn, name: str, ifindex: int) -> Device:
    """A device of any driver, with anything told or untold."""
    queues = draw(st.integers(0, 3))
    coalescing = draw(st.one_of(DEVICE_COALESCING, DEVICE_COALESCING, st.none()))
    own = coalescing if draw(st.sampled_from((False, False, True))) else None
    ring = st.one_of(st.sampled_from((64, 256, 512, 1024, 4096)), st.integers(0, 8192), st.none())
    return Device(
        name=name,
        ifindex=ifindex,
        up=draw(st.sampled_from((True, True, True, False))),
        driver=draw(_DRIVERS),
        bus=draw(st.sampled_from(("0000:03:00.0", "virtio0", "N/A", "tun", None))),
        speed_mbps=draw(st.one_of(SPEEDS, SPEEDS, st.none())),
        coalescing=coalescing,
        queue_coalescing=tuple(
            QueueCoalescing(queue=number, coalescing=draw(st.just(own) | DEVICE_COALESCING))
            for number in range(queues)
            if own is not None
        ),
        rings=draw(st.one_of(st.builds(Rings, rx=ring, tx=ring), st.builds(Rings, rx=ring, tx=ring), st.none())),
        deferral=draw(
            st.none() | st.builds(DeviceDeferral, defer_hard_irqs=st.just(0), gro_flush_timeout_ns=_TIMERS_NS)
        ),
        queues=tuple(
            Queue(ifindex=ifindex, kind=kind, index=number, napi_id=None)
            for kind in ("rx", "tx")
            for number in range(queues)
        ),
        napis=tuple(
            Napi(napi_id=100 * ifindex + number, ifindex=ifindex, irq=None, settings=draw(_SETTINGS))
            for number in range(draw(st.integers(0, queues)))
        ),
    )


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """Up to two devices, perhaps polled by a process."""
    found = tuple(
        draw(devices(name, ifindex)) for ifindex, name in enumerate(("eth0", "eth1.7"), 2) if draw(st.booleans())
    )
    params = EpollParams(busy_poll_usecs=0, busy_poll_budget=64, prefer_busy_poll=True)
    ids = [napi.napi_id for device in found for napi in device.napis]
    polled = draw(st.lists(st.sampled_from(ids), max_size=1)) if ids else []
    return Machine(
        kernel="6.18",
        netns=1,
        devices=found,
        pollers=tuple(
            EpollPoller(pid=9, name="memcached", epoll_fd=3, params=params, napi_ids=(napi_id,)) for napi_id in polled
        ),
        tcp_limit_output_bytes=draw(st.none() | st.sampled_from((1 << 18, 1 << 20, 1 << 22)) | st.integers(0, 1 << 24)),
    )
