"""Server-side latency: of each request the time until it has been read, and until the reply, and of no other's.

The test is the server itself, over loopback: it knows how long it lets data wait.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from statistics import quantiles

import pytest

from napctl.model.latency import NOTHING
from napctl.observe.server_latency import LatencyMeter
from napctl.probe.latency import MOST_PORTS, LatencyProbe
from tests.lab.probe.served_here import LEAST_NS, PAUSE, connected, connection, datagrams, least, longest, of

pytestmark = [pytest.mark.lab, pytest.mark.alone]


@pytest.fixture
def probe() -> Iterator[LatencyProbe]:
    with LatencyProbe.load([os.getpid()], least_gap=2, always=True) as probe:
        yield probe


@pytest.mark.parametrize("kind", [datagrams, connected])
def test_it_is_how_long_data_lay_in_the_socket(probe: LatencyProbe, kind: object) -> None:
    with kind() as (client, server):  # type: ignore[operator]
        for _ in range(30):
            client.send(b"x")
            time.sleep(PAUSE)
            server.recv(10)
    found = of(probe)
    assert 5 <= found.until_read.samples <= 30, "one in two, at random"
    assert least(found.until_read) >= LEAST_NS
    assert found.until_reply == NOTHING
    assert longest(found.waited_for_poll_bound) <= 1024, "by loopback nothing waits for a poll"


@pytest.mark.parametrize("kind", [datagrams, connected])
def test_the_reply_is_the_next_that_is_sent_on_that_socket(probe: LatencyProbe, kind: object) -> None:
    with kind() as (client, server), socket.socket(type=socket.SOCK_DGRAM) as other:  # type: ignore[operator]
        other.bind(("127.0.0.1", 0))
        server_sends = server.send if server.type == socket.SOCK_STREAM else None
        for _ in range(30):
            client.send(b"x")
            server.recv(10)
            other.sendto(b"no reply", other.getsockname())
            time.sleep(PAUSE)
            if server_sends:
                server_sends(b"y")
            else:
                server.sendto(b"y", client.getsockname())
    found = of(probe)
    assert found.until_reply.samples == found.until_read.samples >= 5
    assert least(found.until_reply) >= LEAST_NS
    assert (found.until_read.percentile_ns(0.5) or 0) < LEAST_NS


def test_each_datagram_of_a_backlog_has_its_own_arrival(probe: LatencyProbe) -> None:
    """The k-th recv belongs to the k-th arrival: with the first, or the last, the tail would be lost."""
    took_ns = []
    with datagrams() as (client, server):
        for _ in range(8):
            began = time.monotonic_ns()
            for _ in range(10):
                client.send(b"x")
            for _ in range(10):
                time.sleep(PAUSE / 2)
                server.recv(10)
            took_ns.append(time.monotonic_ns() - began)
    found = of(probe).until_read
    assert 20 <= found.samples <= 80
    assert longest(found) >= 9 * LEAST_NS / 2
    assert LEAST_NS * 2 <= (found.percentile_ns(0.5) or 0) <= 0.8 * max(took_ns)
    assert least(found) < 0.3 * max(took_ns)


def test_datagrams_that_somebody_else_has_taken_do_not_shift_the_others(probe: LatencyProbe) -> None:
    with datagrams() as (client, server):
        child = os.fork()
        if not child:
            for _ in range(7):
                server.recv(10)
            os._exit(0)
        for _ in range(7):
            client.send(b"x")
        os.waitpid(child, 0)
        for _ in range(30):
            client.send(b"x")
            time.sleep(PAUSE)
            server.recv(10)
    found = of(probe).until_read
    assert found.samples >= 5
    assert least(found) >= LEAST_NS
    assert (found.percentile_ns(0.5) or 0) < 3 * PAUSE * 1e9


def test_data_is_read_when_its_last_byte_is(probe: LatencyProbe) -> None:
    with connected() as (client, server):
        for _ in range(20):
            client.send(b"x" * 50)
            for _ in range(5):
                time.sleep(PAUSE / 4)
                server.recv(10)
    assert least(of(probe).until_read) >= 5 * LEAST_NS / 4


def test_of_several_requests_in_flight_each_counts_from_its_own_arrival(probe: LatencyProbe) -> None:
    with connected() as (client, server):
        for _ in range(20):
            for _ in range(3):
                client.send(b"x")
                time.sleep(PAUSE)
            server.recv(10)
    found = of(probe).until_read
    assert found.samples >= 15
    assert longest(found) >= 3 * LEAST_NS
    assert least(found) < 2 * PAUSE * 1e9


@pytest.mark.parametrize("kind", [datagrams, connected])
def test_a_peek_and_a_fruitless_recv_are_no_reads(probe: LatencyProbe, kind: object) -> None:
    with kind() as (client, server):  # type: ignore[operator]
        for _ in range(20):
            with pytest.raises(BlockingIOError):
                server.recv(10, socket.MSG_DONTWAIT)
            client.send(b"x")
            server.recv(10, socket.MSG_PEEK)
            time.sleep(PAUSE)
            server.recv(10)
    assert least(of(probe).until_read) >= LEAST_NS


def test_of_other_processes_nothing_is_counted_until_they_are_added(probe: LatencyProbe) -> None:
    with connected() as (client, server):
        child = os.fork()
        if not child:
            client.close()
            while data := server.recv(10):
                server.send(data)
            os._exit(0)
        server.close()

        def ask(times: int) -> None:
            for _ in range(times):
                client.send(b"x")
                client.recv(10)

        ask(20)
        assert of(probe, child).until_read == NOTHING
        probe.add(child)
        probe.add(child)
        ask(40)
        client.close()
        os.waitpid(child, 0)
    found = of(probe, child)
    assert found.until_read.samples >= 8
    assert found.until_reply.samples >= 8


def test_of_a_process_that_is_dropped_nothing_more_is_counted(probe: LatencyProbe) -> None:
    with connected() as (client, server):

        def ask(times: int) -> int:
            for _ in range(times):
                client.send(b"x")
                server.recv(10)
                server.send(b"y")
                client.recv(10)
            return of(probe).until_read.samples

        before = ask(40)
        assert before >= 8
        probe.drop(os.getpid())
        assert ask(40) <= before + 1, "one may have been chosen before"
        probe.add(os.getpid())
        assert ask(40) >= before + 8


def test_who_has_read_from_thousands_of_local_ports_fills_it(probe: LatencyProbe) -> None:
    assert not probe.is_full
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))
        for port in range(20_000, 20_000 + MOST_PORTS + 200):
            with socket.socket(type=socket.SOCK_DGRAM) as server, suppress(OSError):  # somebody else's
                server.bind(("127.0.0.1", port))
                client.sendto(b"x", ("127.0.0.1", port))
                server.recv(10)
    assert probe.is_full


def test_connections_that_come_and_go_are_all_seen_but_the_first(probe: LatencyProbe) -> None:
    """More of them than the table has places; most carry one request."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        for _ in range(5000):
            with connection(listener) as (client, server):
                client.send(b"x")
                server.recv(10)
    found = of(probe).until_read
    # The client's end is this process's, too, but receives nothing.
    assert 2200 <= found.samples <= 2800
    assert probe.losses.lost_samples == 0


def test_more_sockets_than_places_are_counted_as_lost(probe: LatencyProbe) -> None:
    """Each keeps a datagram unread."""
    kept = []
    try:
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            for _ in range(6000):
                server = socket.socket(type=socket.SOCK_DGRAM)
                kept.append(server)
                server.bind(("127.0.0.1", 0))
                client.sendto(b"x", server.getsockname())
                server.recv(10)
    except OSError as error:
        pytest.skip(f"so many descriptors are not to be had: {error}")
    finally:
        for each in kept:
            each.close()
    lost = probe.losses.lost_samples
    assert lost > 1000
    with datagrams() as (client, server):  # the places of those that are closed
        for _ in range(20):
            client.send(b"x")
            server.recv(10)
    assert probe.losses.lost_samples == lost


def test_threads_that_read_from_one_socket_count_each_datagram_once(probe: LatencyProbe) -> None:
    with datagrams() as (client, server):
        server.settimeout(60)

        def read() -> None:
            while server.recv(10) != b"end":
                pass

        readers = [threading.Thread(target=read) for _ in range(3)]
        for each in readers:
            each.start()
        for _ in range(300):
            client.send(b"x")
            time.sleep(0.0003)
        for _ in readers:
            client.send(b"end")
        for each in readers:
            each.join()
    found = of(probe).until_read
    assert 80 <= found.samples <= 220
    assert (found.percentile_ns(0.9) or 0) < 1e9


def test_what_is_read_otherwise_than_by_recv_is_said() -> None:
    reading, writing = os.pipe()
    with LatencyMeter([os.getpid()]) as meter, connected() as (client, server):
        meter.restart()
        for _ in range(40):
            for _ in range(15):
                client.send(b"x")
                time.sleep(0.001)
                assert os.splice(server.fileno(), writing, 10) == 1
                os.read(reading, 10)
            client.send(b"last")
            server.recv(10)
        window = meter.window()
    os.close(reading)
    os.close(writing)
    assert sum(each.until_read.samples for each in window.processes) <= 40, "what was spliced would be about 75 more"
    assert any("other means than recv" in lack for lack in window.lacks), window.lacks


def test_a_window_without_a_read_says_so() -> None:
    with LatencyMeter([os.getpid()]) as meter:
        window = meter.window()
    assert window.together is None
    assert window.lacks == ("server-side latency: it read nothing by recv in this window",)


def test_slices_see_what_all_the_time_sees() -> None:
    """About a quarter of it; what comes in one and is read after its end is not lost, nor is it timed to the end."""
    pause, paused_ns = 0.01, []
    with (
        LatencyProbe.load([os.getpid()], least_gap=1) as probe,
        connected() as (tcp, tcp_server),
        datagrams() as (udp, udp_server),
    ):
        for number in range(150):
            client, server = ((tcp, tcp_server), (udp, udp_server))[number % 2]
            began = time.monotonic_ns()
            client.send(b"x")
            time.sleep(pause)
            server.recv(10)
            paused_ns.append(time.monotonic_ns() - began)
        found, losses = of(probe).until_read, probe.losses
    assert 20 <= found.samples <= 60
    assert least(found) >= pause * 1e9 * 0.93
    assert (found.percentile_ns(0.9) or 0) < 1.4 * quantiles(paused_ns, n=20)[-1]
    assert losses.lost_samples == losses.unseen_datagrams == 0


def test_of_a_datagram_that_waits_from_slice_to_slice_the_wait_is_its_own() -> None:
    """The order is kept though nobody counts between slices: here the queue is never empty."""
    with LatencyProbe.load([os.getpid()], least_gap=1) as probe, datagrams() as (client, server):
        depth, pause, sent_ns, waited_ns = 5, 0.006, list[int](), list[int]()
        for _ in range(depth):
            client.send(b"x")
            sent_ns.append(time.monotonic_ns())
        for number in range(200):
            client.send(b"x")
            sent_ns.append(time.monotonic_ns())
            time.sleep(pause)
            server.recv(10)
            waited_ns.append(time.monotonic_ns() - sent_ns[number])
        found = of(probe).until_read
    assert found.samples >= 20
    assert 0.9 * (depth + 1) * pause * 1e9 <= (found.percentile_ns(0.1) or 0)
    assert (found.percentile_ns(0.9) or 0) <= 1.3 * quantiles(waited_ns, n=20)[-1]


def test_all_that_was_read_before_a_send_has_its_reply_by_it(probe: LatencyProbe) -> None:
    """Were it the oldest alone, requests that come in bunches, and wait, would hardly count."""
    with connected() as (client, server):
        for _ in range(20):
            for _ in range(3):
                client.send(b"x")
                time.sleep(PAUSE / 4)
            for _ in range(3):
                server.recv(1)
            server.send(b"yyy")
            client.recv(10)
    found = of(probe)
    assert found.until_read.samples >= 15
    assert found.until_reply.samples >= found.until_read.samples - 1, "the client's last recv has none"


def test_who_never_replies_is_looked_at_for_ever(probe: LatencyProbe) -> None:
    with connected() as (client, server):
        for _ in range(300):
            client.send(b"x")
            server.recv(10)
    assert of(probe).until_read.samples >= 100
    assert probe.losses.lost_samples == 0
