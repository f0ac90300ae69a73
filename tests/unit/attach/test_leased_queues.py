"""What a leased queue feeds is not ours to set."""

from msgspec.structs import replace

from napctl.attach.fitness import verdicts
from napctl.attach.next_best import misfit
from napctl.attach.plain_sockets import socket_fitness
from napctl.attach.rings import ring_verdicts
from napctl.model.machine import Device, QueueUse
from tests.unit.attach.targets import examination, instance, nic, plain_socket, ring, waits


def with_lease() -> Device:
    """NAPI 300 serves a queue that is ours, 301 one that is leased."""
    device = nic((300, 301))
    own, other = device.queues
    return replace(device, queues=(own, replace(other, uses=(QueueUse(kind="lease", ifindex=8, queue=1, netns_id=0),))))


def test_an_epoll_instance_that_a_leased_queue_feeds_does_not_fit() -> None:
    ours, theirs = verdicts(examination(instance(5, {300: 4}), instance(6, {301: 4}), nics=[with_lease()]))
    assert ours.judgement == "fits"
    assert theirs.judgement == "does not fit"
    assert "rx1 of eth0 is leased to queue 1 of interface 8" in theirs.why


def test_a_socket_that_a_leased_queue_feeds_does_not_fit() -> None:
    threads = (waits(call="recv"),)
    found = examination(
        plain_sockets=(plain_socket(300, threads=threads), plain_socket(301, threads=threads)), nics=[with_lease()]
    )
    (_, ours), (_, theirs) = socket_fitness(found, poll_sysctl=0)
    assert ours.judgement == "fits"
    assert (theirs.judgement, "leased" in theirs.why) == ("does not fit", True)


def test_a_ring_that_a_leased_queue_feeds_does_not_fit() -> None:
    ours, theirs = ring_verdicts(examination(rings=[ring(300), ring(301, fd=21)], nics=[with_lease()]))
    assert ours.judgement == "fits"
    assert (theirs.judgement, "leased" in theirs.why) == ("does not fit", True)


def test_no_mode_is_offered_for_a_leased_queue() -> None:
    found = examination(instance(5, {300: 3, 301: 2}), nics=[with_lease()])
    for mode in ("thread", "defer"):
        assert "rx1 of eth0 is leased" in misfit(mode, found)
