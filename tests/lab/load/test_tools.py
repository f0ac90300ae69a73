"""Real load tools against real servers of the lab: what napctl reads is what the tool printed."""

import re
import shutil
from pathlib import Path

import pytest

from napctl.kernel.namespaces import NetworkNamespace
from napctl.lab.bed import Lab
from napctl.lab.compiled import compiled
from napctl.lab.servers import Server, accepts, memcached, serve
from napctl.lab.webservers import nginx, redis
from napctl.load.process import LoadCommand, run_load
from napctl.load.tools import Reading
from napctl.model.errors import NapctlError
from tests.figures import invented
from tests.lab.other_servers import bound

pytestmark = pytest.mark.lab

PACKAGES = {
    "sockperf": "sockperf",
    "wrk": "wrk",
    "h2load": "nghttp2-client",
    "redis-benchmark": "redis-tools",
    "iperf3": "iperf3",
}
PERCENTILES = {"latency_p50_us": 50.0, "latency_p95_us": 95.0, "latency_p99_us": 99.0, "latency_p999_us": 99.9}


class Bench:
    """Runs a load in the client's namespace, and keeps what it printed."""

    def __init__(self, shared_lab: Lab, raw: Path):
        self.lab = shared_lab
        self.raw = raw

    def run(
        self, template: str, *, rate: float = 1000, seconds: float = 1, adapter: str = "", limit_seconds: float = 20
    ) -> Reading:
        load = LoadCommand.of(template, adapter=adapter)
        if (package := PACKAGES.get(load.adapter.name)) and shutil.which(load.adapter.name) is None:
            pytest.fail(f"apt-get install {package}")
        return run_load(
            load,
            rate=rate,
            seconds=seconds,
            seed=1,
            limit_seconds=limit_seconds,
            raw_path=self.raw,
            namespace=self.lab.client.namespace,
        )

    def lines(self, pattern: str) -> list[list[float]]:
        """The numbers of each line of the output that the pattern matches."""
        return [
            [float(number) for number in found.groups()]
            for found in re.finditer(pattern, self.raw.read_text(), re.MULTILINE)
        ]


@pytest.fixture
def bench(shared_lab: Lab, tmp_path: Path) -> Bench:
    return Bench(shared_lab, tmp_path / "raw")


def rises(reading: Reading) -> bool:
    """The percentiles that were told do not fall, and none is 0."""
    told = [value for name in PERCENTILES if (value := getattr(reading, name)) is not None]
    return bool(told) and told == sorted(told) and told[0] > 0


def sockperf_server(shared_lab: Lab, *, udp: bool = False) -> Server:
    command = ["sockperf", "sr", "-i", shared_lab.server.address, "-p", "11111", *([] if udp else ["--tcp"])]

    def ready(lab: Lab, server: Server) -> bool:
        return bound(server, "udp") == 1 if udp else accepts(lab, server)

    return serve(shared_lab, command, 11111, ready=ready)


def test_wrk(shared_lab: Lab, bench: Bench) -> None:
    with nginx(shared_lab) as server:
        reading = bench.run(f"wrk -t1 -c4 -d{{seconds}}s --latency http://{server.address}:{server.port}/")
    ((rate,),) = bench.lines(r"^Requests/sec: +([\d.]+)")
    assert (reading.requests_per_second, reading.errors) == (rate, 0)
    assert not invented(reading, bench.raw.read_text())
    assert reading.latency_p99_us is not None
    assert rises(reading)


def test_h2load(shared_lab: Lab, bench: Bench) -> None:
    with nginx(shared_lab) as server:
        reading = bench.run(f"h2load --h1 -c4 -D{{seconds}} http://{server.address}:{server.port}/")
    ((rate,),) = bench.lines(r"^finished in .*, ([\d.]+) req/s")
    assert (reading.requests_per_second, reading.errors) == (rate, 0)
    assert not invented(reading, bench.raw.read_text())
    assert reading.latency_avg_us


@pytest.mark.parametrize("options", ["--csv", "", "-q"])
def test_redis_benchmark(shared_lab: Lab, bench: Bench, options: str) -> None:
    with redis(shared_lab) as server:
        reading = bench.run(f"redis-benchmark -h {server.address} -p {server.port} -t get -n 5000 -c 4 {options}")
    assert not invented(reading, bench.raw.read_text())
    assert reading.requests_per_second
    assert rises(reading)


@pytest.mark.alone
@pytest.mark.parametrize("mode", ["ping-pong", "under-load --mps={rate} --reply-every=1"])
def test_sockperf(shared_lab: Lab, bench: Bench, mode: str) -> None:
    with sockperf_server(shared_lab) as server:
        reading = bench.run(f"sockperf {mode} --tcp -i {server.address} -p {server.port} -t {{seconds}} --full-rtt")
    rows = bench.lines(r"^sockperf: ---> percentile ([\d.]+) = +([\d.]+)")
    printed = {row[0]: row[1] for row in rows}
    ((seconds, received),) = bench.lines(r"Valid Duration\] RunTime=([\d.]+) sec;.* ReceivedMessages=(\d+)")
    beyond = {name: received * (100 - percent) / 100 for name, percent in PERCENTILES.items()}
    wanted = {name: printed.get(percent) if beyond[name] >= 1 else None for name, percent in PERCENTILES.items()}
    assert {name: getattr(reading, name) for name in PERCENTILES} == wanted
    assert reading.requests_per_second == pytest.approx(received / seconds)
    assert [[reading.errors]] == bench.lines(r"^sockperf: # dropped messages = (\d+)")
    assert bool(reading.warnings) == any(PERCENTILES[name] in printed and beyond[name] < 1 for name in PERCENTILES)
    assert rises(reading)


def test_sockperf_that_reaches_no_server_ends_with_0_and_is_an_error_all_the_same(
    shared_lab: Lab, bench: Bench
) -> None:
    with pytest.raises(NapctlError, match=r"sockperf: no '\[Valid Duration\]' .* Connection refused"):
        bench.run(f"sockperf ping-pong --tcp -i {shared_lab.server.address} -p 11112 -t 1")


@pytest.mark.parametrize("options", ["", "-u -b 5M -l 1000"])
def test_iperf3(shared_lab: Lab, bench: Bench, options: str) -> None:
    command = ["iperf3", "-s", "-B", shared_lab.server.address, "-p", "5201"]
    # Not tried by a connection: it would take that for a client, and listens anew once that has gone.
    with serve(shared_lab, command, 5201, ready=lambda _, server: bound(server, "tcp") == 1) as server:
        # Beside other work the server may hear a second late of the end: of so long a run that is less than all of it.
        reading = bench.run(f"iperf3 -c {server.address} -p {server.port} -t {{seconds}} {options} -J", seconds=4)
    printed = bench.raw.read_text()
    assert not invented(reading, printed, derived=("requests_per_second",))
    assert reading.bits_per_second
    assert (reading.jitter_us is None) == (reading.requests_per_second is None) == (not options)


def test_our_own_generator(shared_lab: Lab, bench: Bench) -> None:
    with memcached(shared_lab) as server:
        options = "--rate={rate} --seconds={seconds} --seed={seed} --warmup=0.2 --connections=4"
        reading = bench.run(f"{compiled('openloop')} --host={server.address} --port={server.port} {options}")
    ((rate,),) = bench.lines(r'"achieved_per_second":([\d.]+)')
    assert reading.requests_per_second == rate > 0
    assert not invented(reading, bench.raw.read_text())
    assert sum(count for _, count in reading.latency) > 0
    assert reading.saturated is not None
    assert rises(reading)


def test_a_load_that_cannot_end_is_ended_at_its_limit(shared_lab: Lab, bench: Bench) -> None:
    """redis-benchmark that finds no server spins for ever."""
    with pytest.raises(NapctlError, match=r"did not end within 2 s .*last words: "):
        bench.run(f"redis-benchmark -h {shared_lab.server.address} -p 6399 -t get -n 1000 -c 4", limit_seconds=2)


def test_a_load_runs_in_the_namespace_it_is_given(shared_lab: Lab, bench: Bench) -> None:
    bench.run("ip -o link; echo rps=1", adapter="regex:requests_per_second=rps=(.)")
    assert shared_lab.client.device in bench.raw.read_text()
    with NetworkNamespace.current() as here:
        assert here.inode != shared_lab.client.namespace.inode
