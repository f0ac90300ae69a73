"""A real Prometheus, real load, real polls: what it is told is true, and every query of the dashboard has an answer."""

import json
import math
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from napctl.kernel.namespaces import NetworkNamespace
from napctl.lab.bed import Lab
from napctl.lab.servers import Server, memcached
from napctl.model.finding import Finding
from napctl.model.policy import MetricsPlace, ServiceEntry
from napctl.model.snapshot import PolicyState, Snapshot
from napctl.observe.machine import take_devices
from napctl.probe import Probe
from napctl.probe.suspension import SuspensionProbe
from napctl.service import exposure, open_probes
from napctl.service.metrics import MetricsServer, SnapshotCollector, text_of
from napctl.service.snapshots import ServiceState, SnapshotTaker, Watched, WatchedTarget
from tests.lab.attach.test_adapting_for_weeks import FAR_PIDS, full_of_processes
from tests.lab.conftest import LoadStarter
from tests.lab.helpers import Napctl, ask, bpftrace, silence, until, wait_for_packets
from tests.lab.ports import free_port
from tests.tries import in_one_of

pytestmark = pytest.mark.lab

DEPLOY = Path(__file__).parents[3] / "deploy"
RANGE = "5s"
"""For the dashboard's $__rate_interval: Prometheus scrapes every 0.5 s here."""
VARIABLES = ("instance", "device", "target")
FINDING = Finding(
    rule="tx-only-interrupts", severity="cost", where="server0", title="", evidence=(), consequence="", remedy="",
    certainty="certain", basis="",
)  # fmt: skip


@contextmanager
def prometheus(directory: Path, port: int) -> Iterator[Callable[[str], list[float]]]:
    """One that scrapes that port; it is asked a query, and gives the values that it finds, which are numbers."""
    (directory / "prometheus.yml").write_text(
        f"""
global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}
rule_files: ["{DEPLOY}/prometheus/rules.yml"]
scrape_configs: [{{job_name: napctl, static_configs: [{{targets: ["127.0.0.1:{port}"]}}]}}]
"""
    )
    own_port = free_port()
    command = [
        "prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address=127.0.0.1:{own_port}", "--log.level=error",
    ]  # fmt: skip

    def get(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{own_port}{path}", timeout=30) as answer:
            return str(answer.read().decode())

    def ready() -> bool:
        try:
            return bool(get("/-/ready"))
        except OSError:
            return False

    def query(words: str) -> list[float]:
        answer = json.loads(get(f"/api/v1/query?{urllib.parse.urlencode({'query': words})}"))
        assert answer["status"] == "success", answer
        found = [float(each["value"][1]) for each in answer["data"]["result"]]
        return [each for each in found if not math.isnan(each)]

    with subprocess.Popen(command) as process:
        try:
            until(ready, "Prometheus")
            yield query
        finally:
            process.kill()


def queries() -> list[tuple[str, str]]:
    """Of the dashboard, with everything selected: title of the panel, and the query."""
    board = json.loads((DEPLOY / "grafana/napctl.json").read_text())
    found = []
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            words = target["expr"].replace("$__rate_interval", RANGE)
            for name in VARIABLES:
                words = words.replace(f"${name}", ".*")
            found.append((panel["title"], words))
    return found


def promtool(*arguments: str, told: bytes = b"") -> tuple[int, str]:
    done = subprocess.run(
        ["promtool", *arguments], input=told, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return done.returncode, done.stdout.decode()


def of(lab: Lab) -> list[Watched]:
    return [Watched(lab.server.namespace, ("server0",))]


def test_a_real_prometheus_finds_an_answer_to_every_query_of_the_dashboard(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl, tmp_path: Path
) -> None:
    load(5_000, seconds=60)
    attached = napctl.attach_quickly(server.pid)
    target = WatchedTarget("memcached", [server.pid], attached)
    state = ServiceState(
        policy=PolicyState(decisions={"attach": 1}), findings=[FINDING], findings_monotonic_ns=time.monotonic_ns()
    )
    with ExitStack() as open_now:
        own = open_now.enter_context(NetworkNamespace.current())
        hardware = [each for each in take_devices(own, (), []) if each.bus]  # only looked at: it may have coalescing
        watched = [*of(lab), Watched(own, [each.name for each in hardware])]
        taker = open_now.enter_context(SnapshotTaker("test"))
        collector = SnapshotCollector()
        collector.show(taker.take(watched, [target], state))
        metrics = open_now.enter_context(MetricsServer(collector, "127.0.0.1", 0))
        query = open_now.enter_context(prometheus(tmp_path, metrics.port))
        # It begins to scrape 5 s after its start, at once with what it has found then.
        until(lambda: query("count_over_time(napctl_up[20s])") > [2.0], "scrapes")
        asked = queries()
        if not any(each.coalescing and each.coalescing.rx_usecs is not None for each in hardware):
            asked = [each for each in asked if "napctl_coalescing_seconds" not in each[1]]

        def attempt() -> None:
            """Some are not told of a moment without packets."""
            time.sleep(0.5)
            collector.show(taker.take(watched, [target], state))
            time.sleep(0.5)
            assert [(title, words) for title, words in asked if not query(words)] == []
            assert query('napctl_target_active{target="memcached"}') == [1.0]
            assert query("ALERTS") == []
            (polls,) = query(f'rate(napctl_polls_total{{device="server0", by="busy_poll"}}[{RANGE}])')
            assert polls > 100

        in_one_of(attempt, 30)
        text = text_of(collector)
    assert not taker.unavailable
    assert promtool("check", "metrics", told=text) == (0, "")


def test_the_alerts_are_valid_and_each_fires_when_it_should() -> None:
    status, said = promtool("check", "rules", f"{DEPLOY}/prometheus/rules.yml")
    assert (status, "FAILED" in said, "warning" in said.lower()) == (0, False, False), said
    status, said = promtool("test", "rules", f"{DEPLOY}/prometheus/rules_test.yml")
    assert status == 0, said
    rules, tests = ((DEPLOY / "prometheus" / name).read_text() for name in ("rules.yml", "rules_test.yml"))
    alerts = [line.partition("alert:")[2].strip() for line in rules.splitlines() if "- alert:" in line]
    assert len(alerts) > 5
    for alert in alerts:
        assert f"alertname: {alert}\n" in tests, f"{alert} is never shown to fire"
        assert f"alertname: {alert}, exp_alerts: []" in tests, f"{alert} is never shown to be silent"


@pytest.mark.parametrize("attached", [False, True], ids=["detached", "attached"])
def test_packets_per_poll_are_what_bpftrace_counts(
    attached: bool, lab: Lab, server: Server, load: LoadStarter, napctl: Napctl
) -> None:
    with ask(lab, server):
        (napi,) = lab.server.napis()
        if attached:
            napctl.attach_quickly(server.pid)
    silence(server)
    with SnapshotTaker("test") as taker, bpftrace(napi.napi_id) as end:
        before = taker.take(of(lab))
        load(20_000, seconds=1).result()
        silence(server)
        time.sleep(0.1)  # of deferral, which ends by as many empty polls
        for _ in range(3):  # the total of several windows
            last = taker.take(of(lab))
            time.sleep(0.05)
        theirs = end()
    assert polls_of(before) == {"+Inf": 0.0} | dict.fromkeys(polls_of(before), 0.0)
    found, bounds = polls_of(last), [0, 1, 2, 4, 8, 16, 32, 48, 64]
    assert found["+Inf"] > 100
    assert found["+Inf"] == pytest.approx(theirs.total(), rel=0.01)
    for bound in bounds:
        wanted = sum(polls for work, polls in theirs.items() if work <= bound)
        assert found[f"{bound}.0"] == pytest.approx(wanted, rel=0.01, abs=1), bound


def polls_of(snapshot: Snapshot) -> dict[str, float]:
    """napctl_packets_per_poll by bucket."""
    collector = SnapshotCollector()
    collector.show(snapshot)
    families = {each.name: each for each in text_string_to_metric_families(text_of(collector).decode())}
    return {
        each.labels["le"]: each.value
        for each in families["napctl_packets_per_poll"].samples
        if each.name.endswith("_bucket")
    }


def test_what_a_server_and_its_device_did_is_told(lab: Lab, server: Server, load: LoadStarter, napctl: Napctl) -> None:
    target = WatchedTarget("memcached", [server.pid], None)
    with SnapshotTaker("test", per_napi=True) as taker:
        taker.take(of(lab), [target])
        load(10_000, seconds=60)
        wait_for_packets(lab, 1500)
        plain = taker.take(of(lab), [target])
        began = time.monotonic_ns()
        attached = WatchedTarget("memcached", [server.pid], napctl.attach_quickly(server.pid))
        taker.reread()
        taker.take(of(lab), [attached])

        def attempt() -> None:
            wait_for_packets(lab, 3000)
            last = taker.take(of(lab), [attached])
            (device,), (mine,) = last.devices, last.targets
            assert (mine.attached, mine.verdict, mine.timer_ns) == (True, "active", 200_000)
            assert mine.cpu_seconds > plain.targets[0].cpu_seconds > 0
            assert mine.polls
            assert mine.packets
            assert mine.until_read is not None
            assert mine.until_read.samples
            assert device.suspension is not None
            assert device.suspension.suspensions
            assert 0 < device.suspension.suspended_ns < time.monotonic_ns() - began
            assert device.interface.rx_packets > 3000
            assert device.polls is not None
            assert device.polls.all.packets == pytest.approx(device.interface.rx_packets, rel=0.05)
            (napi,) = device.napis
            assert napi.polls == device.polls
            assert napi.settings.gro_flush_timeout_ns == 200_000
            assert last.softirq_ns is not None
            assert last.thread_seconds + last.softirq_ns > 0

        in_one_of(attempt, 10)
    assert (plain.targets[0].attached, plain.targets[0].verdict) == (False, "")


def test_totals_go_on_when_the_link_goes_down_and_when_nobody_watches_for_a_while(lab: Lab, server: Server) -> None:
    with SnapshotTaker("test") as taker, ask(lab, server):
        first = taker.take(of(lab))
        with ask(lab, server):
            second = taker.take(of(lab))
        for state in ("down", "up"):
            with lab.server.namespace.entered():
                subprocess.run(["ip", "link", "set", "server0", state], check=True)
            third = taker.take(of(lab))
        gone = taker.take([Watched(lab.server.namespace, ("nothing",))])
        last = taker.take(of(lab))
    polls = [each.devices[0].polls for each in (first, second, third, last)]
    counted = [each.all.polls for each in polls if each is not None]
    assert counted == sorted(counted)
    assert counted[1] > counted[0]
    assert gone.devices == ()
    assert [each.devices[0].up for each in (second, third)] == [True, True]


def fill(probe: Probe | SuspensionProbe | None, polled_at: int = 1) -> None:
    """Take every place, by an instance where there is none, which was polled then."""
    assert probe is not None
    for slot in probe._counters.slots:
        slot.napi = 1
        if isinstance(probe, SuspensionProbe):
            slot.polled_at = polled_at


def test_probes_that_are_full_of_what_has_gone_are_loaded_anew_and_totals_go_on(
    lab: Lab, server: Server, load: LoadStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_probes, "LEAST_SECONDS", 0)
    load(5_000, seconds=60)
    with SnapshotTaker("test") as taker:
        taker.take(of(lab))
        wait_for_packets(lab, 100)  # by an instance whose place is of no use from then on
        full = taker._probes._napi, taker._probes._suspension
        fill(taker._probes._napi)
        fill(taker._probes._suspension)
        wait_for_packets(lab, 3000)

        def renewed() -> Snapshot | None:
            """That at whose end both are fresh: one whose places were all of use since the last is left as it is."""
            taken = taker.take(of(lab))
            return taken if not {taker._probes._napi, taker._probes._suspension} & {*full} else None

        lossy = until(renewed, "fresh ones")
        assert lossy is not None
        found = []
        for _ in range(2):
            wait_for_packets(lab, 600)
            found.append(taker.take(of(lab)))
    assert lossy.lost_polls > 10
    assert found[-1].lost_polls == lossy.lost_polls
    counted = [each.devices[0].polls for each in (lossy, *found)]
    polls = [each.all.packets for each in counted if each is not None]
    assert polls[1] > polls[0]
    assert polls[2] > polls[1] + 500
    waits = [sum(each.devices[0].suspension.waits) for each in found if each.devices[0].suspension]
    assert waits[1] > waits[0]


def test_a_look_for_findings_loads_no_probe_of_its_own(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loaded, load = list[Probe](), Probe.load

    def counted() -> Probe:
        loaded.append(load())
        return loaded[-1]

    monkeypatch.setattr(Probe, "load", counted)
    monkeypatch.setattr(exposure, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(exposure, "DOCTOR_SECONDS", 0.0)
    place = MetricsPlace(textfile=str(tmp_path / "napctl.prom"))
    with exposure.Exposure(ServiceEntry(metrics=place), lab.server.namespace) as exposed:
        exposed.turn(("server0",), (), {}, PolicyState())
        until(lambda: exposed._doctor.looked_ns, "a look")
        exposed.turn((), (), {}, PolicyState())
    assert "napctl_findings_age_seconds" in Path(place.textfile or "").read_text()
    assert len(loaded) == 1


def test_probes_that_are_full_of_what_lives_are_kept(lab: Lab, server: Server, load: LoadStarter) -> None:
    """They would be full again at once."""
    load(5_000, seconds=60)
    with SnapshotTaker("test") as taker:
        taker.take(of(lab))
        probes = taker._probes
        probes.latencies({4_190_000})  # nobody
        before, latency = (probes._napi, probes._suspension), probes._latency
        assert latency is not None
        fill(probes._napi)
        fill(probes._suspension, polled_at=time.monotonic_ns())
        full_of_processes(latency)
        wait_for_packets(lab, 1000)

        assert taker.take(of(lab)).lost_polls > 0
        assert (probes._napi, probes._suspension) == before
        assert probes._latency is latency

        latency.drop(FAR_PIDS[0])
        probes._renew_from = 0.0
        probes.renew()
        assert (probes._napi, probes._suspension) == before
        assert probes._latency is not latency, "one of its processes has gone"


WITHOUT = """
from napctl.kernel.namespaces import NetworkNamespace
from napctl.service.metrics import SnapshotCollector, text_of
from napctl.service.snapshots import SnapshotTaker, Watched
with NetworkNamespace.current() as netns, SnapshotTaker("test") as taker:
    collector = SnapshotCollector()
    collector.show(taker.take([Watched(netns, ["lo"])]))
    print(text_of(collector).decode())
"""


def test_without_the_right_to_load_probes_the_rest_is_told_and_which_are_missing() -> None:
    command = ["setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin", sys.executable, "-c", WITHOUT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert 'napctl_probe_up{probe="napi"} 0.0' in done.stdout
    assert 'napctl_probe_up{probe="suspension"} 0.0' in done.stdout
    assert 'napctl_packets_total{device="lo",direction="rx"' in done.stdout
    assert "napctl_polls_total" not in done.stdout
    assert "napctl_machine_interrupts_total" not in done.stdout


@pytest.mark.alone
def test_a_snapshot_of_64_queues_costs_little() -> None:
    with Lab.build(queues=64) as lab, memcached(lab) as server, SnapshotTaker("test") as taker:
        target = WatchedTarget("memcached", [server.pid], None)
        taker.take(of(lab), [target])
        began = time.process_time()
        for _ in range(20):
            last = taker.take(of(lab), [target])
        seconds = (time.process_time() - began) / 20
    assert len(last.devices[0].napis) == 64
    assert seconds < 0.010  # 2 ms; every 5 s that is below 0.2 % of a CPU even so
