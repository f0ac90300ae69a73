"""napctl protect under a real flood: when it acts, what it gives the server, and that all is put back."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from bench.threadgroup import busy_program, root

from napctl.lab.flood import AS_SOFTIRQ, flood, started_flood
from napctl.model.errors import Unsupported
from tests.lab.flooded import FloodBed, flood_bed
from tests.lab.following import Following, ended_by, killed
from tests.lab.helpers import Napctl, at_server, in_namespace, machine_of, until
from tests.lab.protect.conftest import xdp_of
from tests.lab.verify.test_thread_price import occupied
from tests.tries import in_one_of

pytestmark = [pytest.mark.lab, pytest.mark.alone]

ON_ITS_CPU = ("taskset", "-c", "1")


@pytest.fixture
def bed(shared_flood_bed: FloodBed) -> FloodBed:
    return shared_flood_bed


@contextmanager
def protecting(napctl: Napctl, bed: FloodBed, *arguments: object, under: Sequence[str] = ()) -> Iterator[Following]:
    """`napctl protect` on the server's device; it watches by then."""
    started = napctl.start("protect", bed.lab.server.device, *at_server(bed.lab), "--json", *arguments, under=under)
    with ended_by(signal.SIGINT, Following(started)) as it:
        it.told("watched: 1 NAPI instance, on CPU 1")
        it.told("napctl runs on CPU 0")
        yield it


@pytest.mark.long
def test_started_on_the_flooded_cpu_it_acts_within_a_second_and_ten_seconds_after_the_flood_all_is_as_before(
    bed: FloodBed, napctl: Napctl
) -> None:
    before = machine_of(bed.lab.server)
    assert bed.nice == [AS_SOFTIRQ]
    with protecting(napctl, bed, under=ON_ITS_CPU) as it:
        time.sleep(0.6)
        with started_flood(bed.lab, bed.offered(4, seconds=4)) as running:
            running.wait_until_sending()
            began = time.time()
            over = began + 4
            acted = it.told("overload: nice 19 for the thread of NAPI", since=began)
            assert acted.seconds - began < 1.0
            assert "CPU 1 overloaded: packets take" in acted.text
            assert bed.nice == [19]
            (transaction,) = napctl.live()
            assert (transaction.kind, transaction.state, len(transaction.changes)) == ("protect", "applied", 1)
            running.result()
        back = it.told("overload is over: nice put back", since=began)
        assert 9.5 < back.seconds - over < 12
        assert machine_of(bed.lab.server) == before
        assert bed.nice == [AS_SOFTIRQ]
        assert napctl.live() == []
        assert it.end(signal.SIGINT) == 0
    assert it.since()[-1] == "protection ends: nothing was to be put back"
    assert it.errors == ""


@pytest.mark.long
def test_storm_control_is_the_last_step_where_it_is_allowed(bed: FloodBed, napctl: Napctl) -> None:
    nobodys = bed.offered(4, seconds=20, port=9)
    with protecting(napctl, bed, "--storm-control", 100) as it:
        until(lambda: xdp_of(bed.lab.server).programs, "storm control to be attached")
        with started_flood(bed.lab, nobodys) as running:
            running.wait_until_sending()
            it.told("overload: nice 19")
            it.told("overload: storm control beyond 100 packets/s of each kind")
            (transaction,) = napctl.live()
            kinds = [type(each).__name__ for each in transaction.changes]
            assert kinds == ["StormControlChange", "ThreadChange", "StormLimitsChange"]
            time.sleep(1)
            assert it.end(signal.SIGINT) == 0
            (told,) = [each for each in it.since() if "storm control dropped" in each]
            assert told.endswith("to ports where nobody listens"), it.since()
    assert xdp_of(bed.lab.server).programs == ()
    assert bed.nice == [AS_SOFTIRQ]
    assert napctl.live() == []


def test_ended_amid_a_flood_it_puts_all_back(bed: FloodBed, napctl: Napctl) -> None:
    with protecting(napctl, bed) as it, started_flood(bed.lab, bed.flooding) as running:
        running.wait_until_sending()
        it.told("overload: nice 19")
        assert it.end(signal.SIGINT) == 0
        assert bed.nice == [AS_SOFTIRQ]
    assert it.since()[-1] == "protection ends: 1 setting put back"
    assert napctl.live() == []


def test_killed_amid_a_flood_its_guard_puts_all_back(bed: FloodBed, napctl: Napctl) -> None:
    with protecting(napctl, bed) as it, started_flood(bed.lab, bed.flooding) as running:
        running.wait_until_sending()
        it.told("overload: nice 19")
        killed(it)
        until(lambda: bed.nice == [AS_SOFTIRQ], "the guard to put it back")
        until(lambda: napctl.live() == [], "the journal to say so")


def test_beside_a_program_that_never_waits_nice_is_put_back_within_two_seconds_and_not_made_again(
    bed: FloodBed, napctl: Napctl
) -> None:
    in_one_of(lambda: nice_is_put_back_within_two_seconds(bed, napctl))


def nice_is_put_back_within_two_seconds(bed: FloodBed, napctl: Napctl) -> None:
    with protecting(napctl, bed) as it, occupied(bed.lab.server.cpu), started_flood(bed.lab, bed.flooding) as running:
        running.wait_until_sending()
        acted = it.told("overload: nice 19")
        back = it.told("overload, and nice put back, not to be made again for 10 minutes: ", since=acted.seconds)
        assert "the packets' thread waited " in back.text
        assert bed.nice == [AS_SOFTIRQ]
        time.sleep(2)
        assert [each for each in it.since(back.seconds) if "nice 19" in each] == []
        assert napctl.live() == []
        assert back.seconds - acted.seconds < 2


@pytest.mark.long
def test_where_units_have_weights_nice_is_put_back_beside_one_that_never_waits(bed: FloodBed, napctl: Napctl) -> None:
    """The thread stands in the root control group, beside the slice of both."""
    try:
        top = root()
    except Unsupported as error:
        pytest.skip(str(error))
    with top.below("napctl-test.slice") as units, units.below("server") as unit, units.below("beside") as beside:
        unit.put(bed.server.pid)
        with (
            protecting(napctl, bed) as it,
            busy_program(bed.lab.server.cpu, beside),
            started_flood(bed.lab, bed.flooding) as running,
        ):
            running.wait_until_sending()
            it.told("overload, and nice put back, not to be made again for 10 minutes: ")
            assert bed.nice == [AS_SOFTIRQ]


@pytest.mark.long
def test_rolled_back_by_hand_it_makes_nothing_more_and_ends(bed: FloodBed, napctl: Napctl) -> None:
    with protecting(napctl, bed) as it, started_flood(bed.lab, bed.flooding) as running:
        running.wait_until_sending()
        it.told("overload: nice 19")
        assert napctl("rollback", "1").status == 0
        it.told("somebody else has put back what protection had made: it makes nothing more")
        assert it.ended() == 0
        assert bed.nice == [AS_SOFTIRQ]
        running.stop()


@pytest.mark.long
@pytest.mark.parametrize("times", [2, 4])
def test_with_nothing_attached_the_server_keeps_its_throughput(bed: FloodBed, napctl: Napctl, times: int) -> None:
    unprotected = flood(bed.lab, bed.offered(times, seconds=3))
    with protecting(napctl, bed):
        time.sleep(0.6)
        protected = flood(bed.lab, bed.offered(times, seconds=6))
    shares = [each.answered_per_second(after_seconds=1) / bed.peak for each in (unprotected, protected)]
    print(f"{times} times the peak: goodput {shares[0]:.0%} of the peak, protected {shares[1]:.0%}")
    assert protected.sent_per_second > 0.8 * times * bed.peak
    assert shares[1] >= 0.8


@pytest.mark.long
def test_a_load_that_steps_one_to_ten_each_second_for_a_minute_changes_nothing(bed: FloodBed, napctl: Napctl) -> None:
    before = machine_of(bed.lab.server)
    with protecting(napctl, bed) as it:
        began = time.time()
        for _ in range(30):
            for share in (0.07, 0.7):
                flood(bed.lab, bed.offered(share, seconds=1))
        assert it.since(began) == []
    assert machine_of(bed.lab.server) == before


@pytest.mark.long
def test_a_device_that_goes_away_in_the_flood_is_forgotten(napctl: Napctl) -> None:
    with flood_bed() as bed, protecting(napctl, bed) as it, started_flood(bed.lab, bed.flooding) as running:
        running.wait_until_sending()
        it.told("overload: nice 19")
        in_namespace(bed.lab.server.namespace, "ip", "link", "delete", bed.lab.server.device)
        it.told("it has gone")
        it.told("not protected: there is no such device")
        assert napctl.live() == []
        assert it.end(signal.SIGINT) == 0
    assert it.errors == ""
