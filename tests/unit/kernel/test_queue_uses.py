"""What queue-get tells of who uses a queue.

The answer about a leased queue was recorded from its documentation ("net: Add lease info to queue-get response", which
shows what mlx5 answers) and not from a machine; so were those about io_uring and device memory, from netdev.yaml.
"""

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from napctl.kernel.netdev import QUEUE, queue
from napctl.kernel.netlink import decode, encode
from napctl.model.machine import QueueUse


def attribute(number: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), number) + payload + b"\0" * (-len(payload) % 4)


def u32(number: int, value: int) -> bytes:
    return attribute(number, struct.pack("=I", value))


RECORDED_LEASE = b"".join((
    u32(1, 15), u32(2, 4), u32(3, 0), u32(4, 8227),  # id, ifindex, type rx, napi-id
    attribute(8, attribute(2, u32(1, 1) + u32(3, 0)) + u32(1, 8) + attribute(3, struct.pack("=i", 0))),
    attribute(7, b""),
))  # fmt: skip
"""{'id': 15, 'ifindex': 4, 'lease': {'ifindex': 8, 'netns-id': 0, 'queue': {'id': 1, 'type': 'rx'}}, 'napi-id': 8227,
'type': 'rx', 'xsk': {}}, as netdev_nl_queue_fill_one() writes it: nests without NLA_F_NESTED."""


def told(data: bytes) -> tuple[QueueUse, ...]:
    return queue(decode(QUEUE, data)).uses


def test_a_leased_queue_says_which_queue_of_which_device_it_is() -> None:
    found = queue(decode(QUEUE, RECORDED_LEASE))
    assert (found.kind, found.index, found.napi_id) == ("rx", 15, 8227)
    assert found.uses == (QueueUse(kind="AF_XDP"), QueueUse(kind="lease", ifindex=8, queue=1, netns_id=0))


def test_a_queue_of_an_older_kernel_is_used_by_nobody_that_is_known_of() -> None:
    assert told(u32(1, 0) + u32(2, 4) + u32(3, 1)) == ()


KINDS = {"dmabuf": "device memory", "io-uring": "io_uring", "xsk": "AF_XDP", "lease": "lease"}
LEASES = st.fixed_dictionaries(
    {"ifindex": st.integers(1, 2**31 - 1)},
    optional={"queue": st.fixed_dictionaries({"id": st.integers(0, 99)}), "netns-id": st.integers(-1, 2**31 - 1)},
)


@given(st.fixed_dictionaries({}, optional={
    "dmabuf": st.integers(0, 2**32 - 1), "io-uring": st.just({}), "xsk": st.just({}), "lease": LEASES,
}))  # fmt: skip
def test_every_use_is_told_and_no_other(used: dict[str, Any]) -> None:
    data = encode(QUEUE, {"id": 3, "ifindex": 4, "type": 0, **used})
    assert {use.kind for use in told(data)} == {KINDS[name] for name in used}
    for use in told(data):
        if use.kind == "lease":
            lease = used["lease"]
            expected = (lease["ifindex"], lease.get("queue", {}).get("id"), lease.get("netns-id"))
            assert (use.ifindex, use.queue, use.netns_id) == expected
