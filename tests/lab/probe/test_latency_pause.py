"""A latency probe that pauses: what it costs then and gives up; that it can go on, or be closed, whatever comes."""

import errno
import os
import time

import pytest
from bench.probecost import statistics, totals

from napctl.probe.latency import LatencyProbe
from napctl.probe.libbpf import BpfObject, LibbpfError
from napctl.probe.loading import ProbeUnavailable
from tests.lab.probe.served_here import LEAST_NS, PAUSE, connected, datagrams, longest, of

pytestmark = [pytest.mark.lab, pytest.mark.alone]


@pytest.mark.parametrize("kind", [datagrams, connected])
def test_while_it_pauses_no_program_runs_and_what_was_chosen_before_is_given_up(kind: object) -> None:
    """Of what is read in the pause nobody knows when: it would seem to have waited until the end of that."""
    with (
        statistics(),
        LatencyProbe.load([os.getpid()], least_gap=1, always=True) as probe,
        kind() as (client, server),  # type: ignore[operator]
    ):

        def ask(times: int) -> int:
            for _ in range(times):
                client.send(b"x")
                server.recv(10)
            return of(probe).until_read.samples

        def runs() -> int:
            return sum(totals(fd)[1] for fd in probe.prog_fds().values())

        before = ask(20)
        assert before >= 10
        client.send(b"x")  # chosen, and not read yet
        probe.pause()
        probe.pause()
        ran = runs()
        assert ask(20) == before
        assert runs() == ran
        time.sleep(PAUSE)
        probe.resume()
        probe.resume()
        after = ask(20)
        assert after >= before + 10
        assert longest(of(probe).until_read) < LEAST_NS
        assert runs() > ran


def test_one_that_cannot_go_on_is_paused_still_goes_on_later_and_can_be_closed_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As without a free descriptor. What was attached until then is detached."""
    attach = BpfObject.attach

    def refuse(program: BpfObject) -> None:
        attach(program)
        raise LibbpfError("attach", errno.EMFILE)

    with LatencyProbe.load([os.getpid()], least_gap=1, always=True) as probe, connected() as (client, server):

        def ask(times: int) -> int:
            for _ in range(times):
                client.send(b"x")
                server.recv(10)
            return of(probe).until_read.samples

        before = ask(20)
        probe.pause()
        with monkeypatch.context() as patched:
            patched.setattr(BpfObject, "attach", refuse)
            with pytest.raises(ProbeUnavailable):
                probe.resume()
        assert ask(20) == before
        probe.resume()
        assert ask(20) > before
        probe.pause()
        monkeypatch.setattr(BpfObject, "attach", refuse)
        with pytest.raises(ProbeUnavailable) as refused:
            probe.resume()
        probe.close()  # while the error holds the frames that it came through
        probe.close()
        assert refused.tb
