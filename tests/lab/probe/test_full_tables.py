"""Tables of the probes that are full: what found no place is counted, told, and no ground for any claim."""

import socket
import time

import pytest

from napctl.attach.activity import Meter
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.model.activity import Now
from napctl.model.window import Window
from napctl.observe.window import Observer
from napctl.probe import ProbeReader
from napctl.probe.suspension import SuspensionProbe
from tests.lab.conftest import LoadStarter
from tests.lab.helpers import Napctl, until
from tests.tries import in_one_of

pytestmark = pytest.mark.lab


def full(probe: ProbeReader | SuspensionProbe) -> None:
    """Take every free place, by instances at address 1, where there is none."""
    for slot in probe._counters.slots:
        slot.napi = slot.napi or 1


def full_of_pollers(probe: ProbeReader) -> None:
    for place, key in enumerate(probe._counters.poller_keys):
        probe._counters.poller_keys[place] = key or 1 << 63 | 1


def test_polls_without_a_place_are_told(lab: Lab, server: Server, load: LoadStarter) -> None:
    with Observer(lab.server.namespace, ["server0"]) as observer:
        assert observer._probe is not None
        full(observer._probe)
        load(5_000)
        observer.restart()
        words = "polls of NAPI instances that found no place in the probe's table"
        until(lambda: any(lack.endswith(words) for lack in observer.window().lacks), "polls without a place")


@pytest.fixture
def meter(server: Server, client: socket.socket, napctl: Napctl) -> Meter:
    """Of a server that is attached, and waits."""
    napctl.attach_quickly(server.pid)
    return Meter(napctl.live())


def read_under(load: LoadStarter, meter: Meter, verdict: str) -> tuple[Now, Window]:
    """A window in which the server was asked, and that is said of it: the load may get no CPU for a while."""
    load(20_000, seconds=60)

    def attempt() -> tuple[Now, Window]:
        meter.restart()
        time.sleep(0.3)
        ((now, window),) = meter.read()
        assert window is not None
        assert now.verdict == verdict
        return now, window

    return in_one_of(attempt, 20)


def test_with_places_an_attached_server_is_active(meter: Meter, load: LoadStarter) -> None:
    with meter:
        now, window = read_under(load, meter, "active")

    assert not without_a_place((*now.lacks, *window.lacks))
    assert now.suspensions_per_second


def test_a_server_whose_busy_polls_have_no_place_is_not_said_to_be_idle(meter: Meter, load: LoadStarter) -> None:
    with meter:
        (observer,) = meter._observers.values()
        assert observer._probe is not None
        full_of_pollers(observer._probe)
        now, _ = read_under(load, meter, "not measured")

    assert now.server_poll_share is None
    assert "no place in the probe's table" in now.why
    assert any(lack.startswith("who made ") and "busy polls" in lack for lack in now.lacks)


def test_suspensions_without_a_place_are_not_told_as_none(meter: Meter, load: LoadStarter) -> None:
    with meter:
        assert meter._probe is not None
        full(meter._probe)
        now, window = read_under(load, meter, "active")

    assert (now.suspensions_per_second, now.timeouts_per_second, now.wait_p99_us) == (None, None, None)
    assert without_a_place(now.lacks)
    assert without_a_place(window.lacks) == without_a_place(now.lacks)


def without_a_place(lacks: tuple[str, ...]) -> list[str]:
    """Those of this probe: of the latency, some requests may find no room as well."""
    return [lack for lack in lacks if lack.startswith("suspensions and waits at ")]
