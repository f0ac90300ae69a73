"""A policy is read as it was meant, or refused in one line that says where and what is allowed."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napctl.adapt.ways import INTERRUPTS, Way
from napctl.model.errors import BadInput
from napctl.model.machine import Coalescing, DimProfile
from napctl.model.plan import Deferral, RingSizes
from napctl.model.policy import AttachEntry, DeviceEntry, MetricsPlace, Origin, Policy, ProtectEntry, ServiceEntry
from napctl.service.policy_file import drop_ins, policy_of, read_policy
from napctl.service.policy_keys import attach_options_of
from tests.strategies import examples

FULL = """\
version = 1

[[attach]]
target = "nginx.service"
steer = true
latency-budget = "150us"
timer-range = "50us..100us"
prefer = "latency"
irq-suspend-timeout = "10ms"

[[attach]]
target = ":11211"
defer-us = 50
defer-hard-irqs = 200
busy-poll-usecs = 20000
busy-poll-budget = 32
force = true

[[device]]
name = "eth0"
goal = "latency"
max-added-latency = "5us"
channels = 8

[device.coalescing]
tx-usecs = 100
use-adaptive-rx = false
rx-profile = [{ usecs = 1, pkts = 8 }]

[device.deferral]
defer-hard-irqs = 2
gro-flush-timeout = "20us"

[device.rings]
rx = 4096

[[device]]
driver = "mlx5_core"
goal = "balanced"

[protect]
devices = ["eth0", "eth1"]
threshold = 80
storm-control = 10000

[service]
on-stop = "keep"
guard-wait = "2s"
metrics = "[::1]:9811"
metrics-per-napi = true
"""


def read(*texts: str) -> Policy:
    """The first as policy.toml, the others as its drop-ins."""
    names = ("policy.toml", *(f"policy.d/{number}.toml" for number in range(1, len(texts))))
    return policy_of((name, text.encode()) for name, text in zip(names, texts, strict=True))


def refused(*texts: str) -> str:
    with pytest.raises(BadInput) as error:
        read(*texts)
    assert error.value.exit_status == 2
    return str(error.value)


def test_each_key_is_read() -> None:
    assert read(FULL) == Policy(
        attach=(
            AttachEntry(
                origin=Origin(file="policy.toml", line=3),
                target="nginx.service",
                steer=True,
                latency_budget_ns=150_000,
                timer_range_ns=(50_000, 100_000),
                prefer="latency",
                irq_suspend_timeout_ns=10_000_000,
            ),
            AttachEntry(
                origin=Origin(file="policy.toml", line=11),
                target=":11211",
                timer_ns=50_000,
                defer_hard_irqs=200,
                busy_poll_usecs=20_000,
                busy_poll_budget=32,
                force=True,
            ),
        ),
        devices=(
            DeviceEntry(
                origin=Origin(file="policy.toml", line=19),
                name="eth0",
                goal="latency",
                max_added_latency_ns=5_000,
                channels=8,
                coalescing=Coalescing(
                    tx_usecs=100,
                    use_adaptive_rx=False,
                    rx_profile=(DimProfile(usecs=1, pkts=8),),
                ),
                deferral=Deferral(defer_hard_irqs=2, gro_flush_timeout_ns=20_000),
                rings=RingSizes(rx=4096),
            ),
            DeviceEntry(origin=Origin(file="policy.toml", line=37), driver="mlx5_core", goal="balanced"),
        ),
        protect=ProtectEntry(
            origin=Origin(file="policy.toml", line=41), devices=("eth0", "eth1"), threshold=80, storm_control=10_000
        ),
        service=ServiceEntry(
            on_stop="keep",
            guard_wait_ns=2 * 10**9,
            metrics=MetricsPlace(address="::1", port=9811),
            metrics_per_napi=True,
        ),
    )


def test_an_empty_file_is_a_policy_that_wants_nothing() -> None:
    assert read("") == Policy()


def test_an_entry_becomes_the_options_that_attach_would_have() -> None:
    adapting, fixed = (attach_options_of(entry) for entry in read(FULL).attach)
    assert adapting.goal is not None
    assert adapting.goal.ways == (INTERRUPTS, Way(gro_flush_timeout_ns=50_000), Way(gro_flush_timeout_ns=100_000))
    assert (adapting.goal.prefer, adapting.steer) == ("latency", True)
    assert (fixed.timer_ns, fixed.goal, fixed.suspension.busy_poll_budget) == (50_000, None, 32)
    (plain,) = read('[[attach]]\ntarget = "nginx"\ndefer-us = "auto"').attach
    assert attach_options_of(plain).timer_ns is None


def test_metrics_go_to_a_textfile_or_beyond_loopback_where_the_file_says_so() -> None:
    assert read('[service]\nmetrics = "textfile:/run/x.prom"').service.metrics == MetricsPlace(textfile="/run/x.prom")
    outside = '[service]\nmetrics = "192.0.2.1:9811"\n'
    allowed = MetricsPlace(address="192.0.2.1", port=9811)
    assert read(outside + "metrics-beyond-loopback = true").service.metrics == allowed
    assert read(outside, "[service]\nmetrics-beyond-loopback = true").service.metrics == allowed
    assert refused("", outside).startswith("policy.d/1.toml:2: metrics: 192.0.2.1 is no loopback address, ")


def test_a_drop_in_adds_entries_and_has_the_last_word_on_the_service() -> None:
    first = '[[attach]]\ntarget = "a"\n[service]\non-stop = "keep"\nguard-wait = "5s"'
    policy = read(first, '[[attach]]\ntarget = "b"\n[service]\non-stop = "restore"')
    assert [str(entry.origin) for entry in policy.attach] == ["policy.toml:1", "policy.d/1.toml:1"]
    assert policy.service == ServiceEntry(on_stop="restore", guard_wait_ns=5 * 10**9)


def test_protection_may_stand_in_several_files_of_which_the_last_has_the_last_word() -> None:
    policy = read('[protect]\ndevices = ["eth0"]\nthreshold = 80', '[protect]\ndevices = "all"')
    assert policy.protect is not None
    assert (policy.protect.devices, policy.protect.threshold, policy.protect.storm_control) == (None, 80, None)
    assert str(policy.protect.origin) == "policy.toml:1"
    assert read("[protect]\nthreshold = 80", '[protect]\ndevices = "all"').protect is not None
    assert read("").protect is None


ATTACH = '[[attach]]\ntarget = "nginx"\n'
DEVICE = '[[device]]\nname = "eth0"\n'
REFUSALS = {
    "an unknown key": (ATTACH + "stear = true", "policy.toml:3: stear: there is no such key; did you mean steer?"),
    "an unknown table": ("[[atach]]\ntarget = 'x'", "policy.toml:1: atach: there is no such key; did you mean attach?"),
    "a single bracket": ("[attach]\ntarget = 'x'", "policy.toml:1: attach: this has to be a table with two brackets, "),
    "no target": ("\n[[attach]]\nsteer = true", "policy.toml:2: the key target is missing"),
    "a wrong type": (ATTACH + 'steer = "yes"', "policy.toml:3: steer: true or false is allowed, not 'yes'"),
    "a wrong unit": (ATTACH + 'latency-budget = "150"', "policy.toml:3: latency-budget: a time with its unit such as "),
    "a budget too long": (ATTACH + 'latency-budget = "1m"', 'allowed, "1us" to "10s", not \'1m\''),
    "a timer of nothing": (ATTACH + "defer-us = 0", "policy.toml:3: defer-us: 0 is not between 1ns and 10s"),
    "a timer that is no number": (ATTACH + "defer-us = 1.5", 'defer-us: "auto" or a number of µs is allowed, '),
    "an empty range": (
        ATTACH + 'latency-budget = "1ms"\ntimer-range = "200us..20us"',
        'policy.toml:4: timer-range: "200us..20us" is empty: the shortest comes first',
    ),
    "a range beyond the suspend timer": (
        ATTACH + 'latency-budget = "1ms"\nirq-suspend-timeout = "1ms"\n\ntimer-range = "20us..2ms"',
        "policy.toml:6: timer-range: the timer range ends at 2ms, but the suspend timer",
    ),
    "a budget beside a timer": (
        ATTACH + 'defer-us = 50\nlatency-budget = "150us"',
        "policy.toml:4: latency-budget: defer-us sets the timer, so there is nothing to choose",
    ),
    "a range without a budget": (
        ATTACH + 'timer-range = "20us..50us"',
        "timer-range: adapting needs a latency-budget, such as 150us",
    ),
    "a spin too long": (ATTACH + "busy-poll-usecs = 20000", "policy.toml:3: busy-poll-usecs: 20000: a task "),
    "an unknown mode": (ATTACH + "mode = 'fast'", "policy.toml:3: mode: allowed are suspend, poll, thread, "),
    "a spin of nobody": (ATTACH + "mode = 'defer'\nspin = true", "policy.toml:4: spin: threads of the kernel spin; "),
    "a timer of a thread": (ATTACH + "mode = 'thread'\ndefer-us = 50", ":4: defer-us: a thread has no timer"),
    "a target that means nothing": ("[[attach]]\ntarget = ':0'", "policy.toml:2: target: :0: a port is a number from "),
    "two entries for one target": (
        f"{ATTACH}\n[[attach]]\ntarget = 'name:nginx'",
        "policy.toml:4: name:nginx has an [[attach]] already (policy.toml:1); one for each is allowed",
    ),
    "no matcher": ("[[device]]\ngoal = 'latency'", "policy.toml:1: exactly one of name, driver, all says which "),
    "two matchers": (DEVICE + "all = true\ngoal = 'latency'", "are meant, not name and all"),
    "all = false": ("[[device]]\nall = false\ngoal = 'latency'", "policy.toml:2: all: true is allowed, not false"),
    "nothing set": (DEVICE, "policy.toml:1: nothing is set; known are goal, "),
    "an impossible name": ("[[device]]\nname = 'a/b'\nchannels = 1", "policy.toml:2: name: 'a/b' is no name that a "),
    "a budget of no goal": (DEVICE + "max-added-latency = '1us'\nchannels = 1", "policy.toml:3: max-added-latency"),
    "an unknown goal": (DEVICE + "goal = 'speed'", "policy.toml:3: goal: allowed are latency, balanced, "),
    "a goal that is no device's": (DEVICE + "goal = 'resilient'", "throughput, efficiency, not 'resilient'"),
    "an unknown setting": (DEVICE + "[device.coalescing]\nrx-usec = 1", "4: coalescing.rx-usec: there is no "),
    "a timer that the kernel cannot hold": (
        DEVICE + "deferral.gro-flush-timeout = '5s'",
        'policy.toml:3: deferral.gro-flush-timeout: a time with its unit such as "50us" is allowed, at most "4s", ',
    ),
    "a device twice": (
        DEVICE + "coalescing.rx-usecs = 1\n" + DEVICE + "coalescing = { tx-usecs = 1, rx-usecs = 2 }",
        "policy.toml:4: coalescing.rx-usecs of eth0 is set already (policy.toml:1); once for each device is allowed",
    ),
    "no address": ("[service]\nmetrics = 'localhost:9811'", "policy.toml:2: metrics: an address with its port, "),
    "no port": ("[service]\nmetrics = '127.0.0.1:0'", "policy.toml:2: metrics: '127.0.0.1:0': a port is a "),
    "a textfile that nobody reads": ("[service]\nmetrics = 'textfile:/run/x'", "a whole path to a file that ends in "),
    "an unknown end": ("[service]\non-stop = 'leave'", "policy.toml:2: on-stop: allowed are restore, keep"),
    "an impatient guard": ("[service]\nguard-wait = '10ms'", 'guard-wait: a time with its unit such as "60s" is'),
    "protection of nobody": ("\n[protect]\nthreshold = 80", "policy.toml:2: the key devices is missing: a list of "),
    "an empty list": ("[protect]\ndevices = []", 'policy.toml:2: devices: "all" (network hardware that is up), or a '),
    "a device that cannot be": ("[protect]\ndevices = ['a/b']", "policy.toml:2: devices: 'a/b' is no name that a "),
    "one device twice": ("[protect]\ndevices = ['a', 'a']", "policy.toml:2: devices: a device is named twice"),
    "a threshold too low": ("[protect]\nthreshold = 9", "policy.toml:2: threshold: a whole number from 50 to 99 is "),
    "a rate of nothing": ("[protect]\nstorm-control = 0", "policy.toml:2: storm-control: a whole number from 1 to "),
    "an unknown step": ("[protect]\nstorm = 1", "policy.toml:2: storm: there is no such key"),
    "two brackets": ("[[protect]]\ndevices = 'all'", "policy.toml:1: protect: this has to be a table: [protect]"),
    "a newer version": ("version = 2\nnew = 1", "policy.toml:1: version: 2 is newer than this napctl, which reads 1"),
    "no TOML": ("version = 1\n\nx", "policy.toml:3: this is no TOML: "),
    "a number of 5,000 digits": (f"a = 1\nversion = {'1' * 5000}", "policy.toml:2: this is no TOML: "),
    "what is nested too deeply": ("version = 1\na = " + "[" * 5000, "policy.toml:2: this is no TOML: "),
    "a forged line": ('"a\\nnapctl: done" = 1', "policy.toml:1: a\\nnapctl: done: there is no such key"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_wrong_is_told_with_its_line_and_what_is_allowed(case: str) -> None:
    text, words = REFUSALS[case]
    told = refused(text)
    assert words in told
    assert "\n" not in told


def test_two_entries_may_set_different_things_of_one_device_and_any_of_a_class() -> None:
    assert len(read(DEVICE + "coalescing.rx-usecs = 1\n" + DEVICE + "coalescing.tx-usecs = 2").devices) == 2
    assert len(read("[[device]]\nall = true\nchannels = 1\n[[device]]\nall = true\nchannels = 2").devices) == 2


PIECES = (
    '"', "'", "[", "]", "[[", "{", "}", "=", ".", ",", "\n", "#", "\\", " ", "-1", "0", "99999999999", "1e400", "nan",
    '"50us"', '"auto"', '"10s"', '"1..2"', "[[attach]]\n", "[[device]]\n", "[service]\n", "target", "all = true\n",
    "1979-05-27", "\x00", "é", "\u202e", "9" * 30, "{}", "[]", "[{}]", "version = 1\n", '"\\n"', "[" * 200, "true",
)  # fmt: skip
LINES = FULL.splitlines(keepends=True)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """The full policy, with some lines left out, doubled or moved, and some text cut or put in."""
    lines = draw(st.one_of(st.just(LINES), st.lists(st.sampled_from(LINES), max_size=40)))
    text = "".join(lines)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(text)))
        end = min(len(text), at + draw(st.integers(0, 12)))
        text = text[:at] + draw(st.one_of(st.just(""), st.sampled_from(PIECES), st.text(max_size=3))) + text[end:]
    return text


@settings(max_examples=examples(100, 2_000))
@given(st.lists(mutated(), min_size=1, max_size=2))
def test_any_mutation_is_a_policy_or_one_line_with_its_place(texts: list[str]) -> None:
    try:
        data = [text.encode() for text in texts]
    except UnicodeEncodeError:
        return
    refusal = ""
    try:
        policy = policy_of((f"p{number}.toml", each) for number, each in enumerate(data))
    except BadInput as error:
        refusal = str(error)
    if not refusal:
        assert all(attach_options_of(entry) for entry in policy.attach)
        return
    place = re.match(r"p(\d)\.toml:(\d+): .", refusal)
    assert place is not None, refusal
    assert 1 <= int(place[2]) <= texts[int(place[1])].count("\n") + 1
    assert refusal.isprintable()


@given(st.binary(max_size=60))
def test_any_bytes_are_a_policy_or_one_line(data: bytes) -> None:
    refusal = "p:1: nothing"
    try:
        policy_of([("p", data)])
    except BadInput as error:
        refusal = str(error)
    assert re.match(r"p:\d+: .", refusal)


# The files.


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(ATTACH)
    path.chmod(0o644)
    return path


def drop_in(policy: Path, name: str, text: str) -> Path:
    directory = policy.with_suffix(".d")
    directory.mkdir(mode=0o755, exist_ok=True)
    (directory / name).write_text(text)
    (directory / name).chmod(0o644)
    return directory


def test_drop_ins_are_read_in_the_order_of_their_names(policy: Path) -> None:
    for name in ("20-b.toml", "10-a.toml", ".#30-c.toml", "40-d.toml~", "README"):
        drop_in(policy, name, f"[[attach]]\ntarget = '{name[:4]}'" if name.endswith(".toml") else "=")
    assert [path.name for path in drop_ins(policy)] == ["10-a.toml", "20-b.toml"]
    assert [entry.target for entry in read_policy(policy).attach] == ["nginx", "10-a", "20-b"]


def test_an_error_in_a_drop_in_names_it(policy: Path) -> None:
    directory = drop_in(policy, "10.toml", "\nx = 1")
    with pytest.raises(BadInput, match=re.escape(f"{directory}/10.toml:2: x: there is no such key")):
        read_policy(policy)


def test_a_policy_that_is_not_there_is_told_with_the_way_to_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file; `napctl policy init` writes one"):
        read_policy(tmp_path / "policy.toml")


@pytest.mark.parametrize("mode", [0o666, 0o664])
def test_a_file_that_others_may_write_to_is_refused(policy: Path, mode: int) -> None:
    policy.chmod(mode)
    with pytest.raises(BadInput, match="others may write to it"):
        read_policy(policy)


def test_a_directory_of_drop_ins_that_others_may_write_to_is_refused(policy: Path) -> None:
    drop_in(policy, "10.toml", "").chmod(0o777)
    with pytest.raises(BadInput, match="others may write to it"):
        read_policy(policy)


def test_a_symbolic_link_a_directory_and_a_pipe_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link.toml").symlink_to("/etc/passwd")
    (tmp_path / "directory.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml")
    for name in ("link", "directory", "pipe", "nul\0"):
        with pytest.raises(BadInput):
            read_policy(tmp_path / f"{name}.toml")


def test_a_file_far_too_large_is_refused(policy: Path) -> None:
    policy.write_text("#" * (1 << 20) + "\n")
    with pytest.raises(BadInput, match="too large for a policy"):
        read_policy(policy)
