"""The bed for overload: what is sent, what is answered, and that packets are as dear as asked for."""

import pytest

from napctl.lab.bed import Lab
from napctl.lab.flood import (
    FLOOD_PORT,
    FloodResult,
    FloodSpec,
    flood,
    make_packets_dear,
    peak_per_second,
    started_flood,
    take_as_softirq,
    take_in_softirq,
    tcp_server,
    udp_server,
)
from napctl.model.errors import NapctlError
from tests.tries import in_one_of

pytestmark = [pytest.mark.lab, pytest.mark.alone]


@pytest.mark.parametrize("waits_in", ["recv", "epoll"])
def test_below_its_peak_the_server_answers_every_packet(waits_in: str) -> None:
    with Lab.build(server_cpu=1, client_cpu=0) as lab, udp_server(lab, waits_in=waits_in):  # type: ignore[arg-type]
        found = in_one_of(lambda: all_answered(lab, FloodSpec(rate_per_second=5000, seconds=1)))
    assert found.sent + found.left_out == pytest.approx(5000, abs=100)
    assert len(found.answered_by_tenth) == 10


def all_answered(lab: Lab, spec: FloodSpec) -> FloodResult:
    """Each packet, and at the rate at which they were sent: a socket's buffer holds those of 50 ms."""
    found = flood(lab, spec)
    assert found.sent > 100
    assert found.answered == found.sent
    assert found.answered_per_second() == pytest.approx(found.sent_per_second, rel=0.05)
    return found


@pytest.mark.long
def test_dear_packets_lower_the_peak_and_overload_lowers_it_more() -> None:
    with Lab.build(server_cpu=1, client_cpu=0) as lab, udp_server(lab):
        take_as_softirq(lab.server)
        cheap = peak_per_second(lab)
        make_packets_dear(lab.server)
        peak = peak_per_second(lab)
        found = flood(lab, FloodSpec(rate_per_second=3 * peak, seconds=1))
    assert peak < 0.8 * cheap
    assert found.answered_per_second() < 0.6 * peak


def test_without_napi_threads_the_server_answers_as_well() -> None:
    with Lab.build(server_cpu=1, client_cpu=0) as lab, udp_server(lab):
        take_in_softirq(lab.server)
        assert [napi.thread_pid for napi in lab.server.napis()] == [None]
        in_one_of(lambda: all_answered(lab, FloodSpec(rate_per_second=5000, seconds=0.5)))


def test_frames_of_its_own_are_answered_like_those_of_its_socket() -> None:
    with Lab.build(server_cpu=1, client_cpu=0) as lab, udp_server(lab):
        in_one_of(lambda: all_answered(lab, FloodSpec(rate_per_second=5000, seconds=0.5, past_stack=True)))


def test_below_its_peak_the_server_answers_each_connection_once() -> None:
    with Lab.build(server_cpu=1, client_cpu=0) as lab, tcp_server(lab):
        found = [flood(lab, FloodSpec(rate_per_second=500, seconds=0.5, connects=True)) for _ in range(2)]
    for each in found:
        assert each.sent > 200
        assert each.answered == each.sent


def test_a_flood_to_a_port_where_nobody_listens_goes_on() -> None:
    with Lab.build(server_cpu=1, client_cpu=0) as lab:
        found = flood(lab, FloodSpec(rate_per_second=5000, seconds=0.3, port=9))
        with pytest.raises(NapctlError, match="nobody answers at port 9"):
            peak_per_second(lab, port=9)
    assert found.sent > 100
    assert found.answered == 0


def test_a_flood_that_is_ended_says_what_came_of_it_until_then() -> None:
    with (
        Lab.build(server_cpu=1, client_cpu=0) as lab,
        udp_server(lab),
        started_flood(lab, FloodSpec(rate_per_second=2000, seconds=60, port=FLOOD_PORT)) as running,
    ):
        running.wait_until_sending()
        found = running.stop()
    assert found.seconds < 10
    assert found.sent_per_second < 3000  # also where it was ended before it sent anything


@pytest.mark.parametrize(
    ("rate", "host", "words"), [(0, "", "an option is out of range"), (1, "x", "x is not an IPv4 address")]
)
def test_a_wrong_option_is_one_line(rate: float, host: str, words: str) -> None:
    spec = FloodSpec(rate_per_second=rate, seconds=1, host=host)
    with (
        Lab.build(server_cpu=1, client_cpu=0) as lab,
        started_flood(lab, spec) as running,
        pytest.raises(NapctlError, match=f"^flood: {words}$"),
    ):
        running.wait_until_sending()
