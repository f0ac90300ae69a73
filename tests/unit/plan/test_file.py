"""Plan files: any plan can be written and read back; nothing that is wrong is read as something else."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from napctl.cli.plan_reading import read_plan
from napctl.model.errors import BadInput
from napctl.model.machine import Coalescing, DimProfile, QueueCoalescing
from napctl.model.plan import Deferral, DevicePlan, Plan, Proposal, RingSizes
from napctl.plan.file import plan_of, plan_text
from tests.strategies import PLANS

HEADER = '[napctl-plan-file]\nschema = 1\ngoal = "balanced"\nmax-added-latency = "50us"\n'
DEVICE = '[eth0]\ndriver = "mlx5_core"\nrx-queues = 8\ntx-queues = 8\n'
COALESCING = f"{HEADER}{DEVICE}[eth0.coalescing]\n"
FULL = Plan(
    goal="throughput",
    max_added_latency_ns=100_000,
    devices=(
        DevicePlan(
            name="eth0.100",
            driver="mlx5_core",
            rx_queues=8,
            tx_queues=8,
            speed_mbps=25_000,
            coalescing=Coalescing(
                rx_usecs=100,
                tx_usecs=150,
                use_adaptive_rx=False,
                rx_profile=(DimProfile(usecs=1, pkts=256), DimProfile(usecs=8, pkts=64, comps=0)),
            ),
            queues=(QueueCoalescing(queue=3, coalescing=Coalescing(rx_usecs=7)),),
            rings=RingSizes(tx=1024),
            deferral=Deferral(defer_hard_irqs=2, gro_flush_timeout_ns=50_000),
        ),
    ),
)
FULL_TEXT = """\
# Settings that napctl apply puts in force. A setting that is not here is not touched.
# Times without a unit are µs, as ethtool has them.

[napctl-plan-file]
schema = 1
goal = "throughput"
max-added-latency = "100us"

["eth0.100"]
# What the settings were computed for; napctl apply refuses another device.
driver = "mlx5_core"
rx-queues = 8
tx-queues = 8
speed-mbps = 25000

["eth0.100".coalescing]
# more per interrupt
# At most: the budget
rx-usecs = 100
tx-usecs = 150
use-adaptive-rx = false
rx-profile = [{ usecs = 1, pkts = 256 }, { usecs = 8, pkts = 64, comps = 0 }]

["eth0.100".rings]
tx = 1024

["eth0.100".deferral]
defer-hard-irqs = 2
gro-flush-timeout = "50us"

["eth0.100".queue.3]
rx-usecs = 7
"""
EXPLAINED = Proposal(
    device="eth0.100",
    setting="rx_usecs",
    now=8,
    proposed=100,
    why="more per interrupt",
    bound="the budget",
    sources=("ethtool netlink",),
)


@given(PLANS)
@example(FULL)
def test_any_plan_can_be_written_and_read_back(plan: Plan) -> None:
    assert plan_of(plan_text(plan), "plan.toml") == plan


def test_the_file_has_the_kernels_names_units_and_reasons() -> None:
    assert plan_text(FULL, [EXPLAINED]) == FULL_TEXT
    assert plan_of(FULL_TEXT, "plan.toml") == FULL


@given(st.text(max_size=80))
def test_no_reason_can_become_anything_but_a_comment(why: str) -> None:
    told = Proposal(device="eth0.100", setting="rx_usecs", now=8, proposed=100, why=why, bound=why, sources=())
    assert plan_of(plan_text(FULL, [told]), "plan.toml") == FULL


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", ("no plan of napctl", "[napctl-plan-file]"), id="empty"),
        pytest.param("eth0 {", ("no TOML", "line 1"), id="no TOML"),
        pytest.param("a = " + "[" * 100_000, ("no TOML",), id="nested"),
        pytest.param(HEADER + DEVICE + f"speed-mbps = {'9' * 5000}\n", ("no TOML",), id="digits"),
        pytest.param(HEADER + DEVICE + DEVICE, ("no TOML", "eth0"), id="a device twice"),
        pytest.param("napctl-plan-file = 1", ("napctl-plan-file", "table"), id="header is no table"),
        pytest.param(HEADER.replace("1", "2"), ("napctl-plan-file.schema", "newer", "reads 1"), id="newer schema"),
        pytest.param(
            HEADER.replace("1", "2") + "x = 1\n", ("napctl-plan-file.schema", "newer"), id="newer schema, other keys"
        ),
        pytest.param(HEADER.replace("schema = 1\n", ""), ("schema", "nothing"), id="no schema"),
        pytest.param(HEADER.replace("1", "0"), ("schema", "1 is allowed, not 0"), id="schema 0"),
        pytest.param(HEADER.replace("balanced", "speed"), ("goal", "latency, balanced", "speed"), id="goal"),
        pytest.param(HEADER.replace("50us", "50"), ("max-added-latency", "50us", "'50'"), id="time without a unit"),
        pytest.param(HEADER.replace("50us", "5s"), ("max-added-latency", "at most", "'5s'"), id="time too long"),
        pytest.param(HEADER.replace('"50us"', "true"), ("max-added-latency", "not true"), id="no time"),
        pytest.param(HEADER + 'gaol = "x"\n', ("napctl-plan-file.gaol", "did you mean goal?"), id="close match"),
        pytest.param(HEADER + "eth0 = 1\n", ("napctl-plan-file.eth0", "known are"), id="no close match"),
        pytest.param("eth0 = 1\n" + HEADER, ("eth0", "table: [eth0]"), id="device is no table"),
        pytest.param(HEADER + '["eth 0"]\n', ("eth 0", "no name"), id="device with a blank"),
        pytest.param(HEADER + f"[{'e' * 128}]\n", ("no name",), id="device with a long name"),
        pytest.param(HEADER + "[eth0]\nrx-queues = 1\n", ("eth0", "tx-queues is missing"), id="no queue counts"),
        pytest.param(HEADER + DEVICE + "speed-mbps = 0\n", ("eth0.speed-mbps", "0 is no link speed"), id="speed 0"),
        pytest.param(HEADER + DEVICE + "coalesce.rx-usecs = 3\n", ("did you mean coalescing?",), id="unknown block"),
        pytest.param(
            COALESCING + "rx-frames = 3\n",
            ("eth0.coalescing.rx-frames", "no such key", "did you mean rx-"),
            id="ethtool's name",
        ),
        pytest.param(COALESCING + "rx-usecs = -1\n", ("rx-usecs", "from 0 to", "not -1"), id="negative"),
        pytest.param(COALESCING + "rx-usecs = 4294967296\n", ("rx-usecs", "4294967295"), id="too big"),
        pytest.param(COALESCING + "rx-usecs = true\n", ("rx-usecs", "not true"), id="switch for number"),
        pytest.param(COALESCING + "rx-usecs = 1.5\n", ("rx-usecs", "not 1.5"), id="fraction"),
        pytest.param(COALESCING + 'rx-usecs = "50us"\n', ("rx-usecs", "'50us'"), id="text for number"),
        pytest.param(
            COALESCING + "use-adaptive-rx = 1\n", ("use-adaptive-rx", "true or false"), id="number"
        ),
        pytest.param(COALESCING + "rx-profile = 1\n", ("rx-profile", "list of levels"), id="no profile"),
        pytest.param(
            COALESCING + "rx-profile = [{ usec = 1 }]\n",
            ("rx-profile[0].usec", "did you mean usecs?"),
            id="key of a level",
        ),
        pytest.param(
            HEADER + DEVICE + "deferral.gro-flush-timeout = 50\n", ("gro-flush-timeout", "not 50"), id="timer"
        ),
        pytest.param(
            HEADER + DEVICE + "queue.00.rx-usecs = 1\n", ("eth0.queue.00", "number of a queue"), id="queue 00"
        ),
        pytest.param(HEADER + DEVICE + "queue.0 = 1\n", ("eth0.queue.0", "table"), id="queue is no table"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_in_one_line_that_names_file_key_and_what_is_allowed(
    text: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(BadInput) as refusal:
        plan_of(text, "plan.toml")
    message = str(refusal.value)
    assert message.startswith("plan.toml: ")
    assert "\n" not in message
    assert len(message) < 400
    assert all(word in message for word in words), message


@given(st.data())
def test_a_damaged_file_is_refused_or_is_a_plan_and_never_a_crash(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(FULL_TEXT)))
    end = data.draw(st.integers(start, len(FULL_TEXT)))
    text = FULL_TEXT[:start] + data.draw(st.text(max_size=5)) + FULL_TEXT[end:]
    try:
        plan = plan_of(text, "plan.toml")
    except BadInput as error:
        assert "\n" not in str(error)  # noqa: PT017 - either is right
    else:
        assert plan_of(plan_text(plan), "plan.toml") == plan


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"\xff\xfe", "UTF-8"), (b" " * (2 << 20), "too large")],
    ids=["no text", "too large"],
)
def test_a_file_that_is_no_plan_is_bad_input(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "plan.toml"
    file.write_bytes(data)
    with pytest.raises(BadInput, match=words):
        read_plan(str(file))


@pytest.mark.parametrize("path", ["/nowhere/plan.toml", "/", "/dev/zero", "a\0b"])
def test_a_path_that_is_no_file_is_bad_input(path: str) -> None:
    with pytest.raises(BadInput):
        read_plan(path)
