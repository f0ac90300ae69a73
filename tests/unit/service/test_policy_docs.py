"""docs/policy.md: its example is a policy, and its table has every key."""

import re
from pathlib import Path

from napctl.model.policy import MetricsPlace
from napctl.service.policy_file import policy_of
from napctl.service.policy_keys import ATTACH, DEVICE, PROTECT, SERVICE

PAGE = (Path(__file__).parents[3] / "docs/policy.md").read_text()


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_example_is_a_policy() -> None:
    text = "\n".join(line.removeprefix("    ") for line in section("An example").splitlines())
    policy = policy_of([("docs/policy.md", text.encode())])
    assert [entry.target for entry in policy.attach] == ["nginx.service", ":11211"]
    assert [(entry.name, entry.all, entry.goal) for entry in policy.devices] == [
        (None, True, "balanced"), ("eth0", False, "latency"),
    ]  # fmt: skip
    assert policy.protect is not None
    assert (policy.protect.devices, policy.protect.storm_control) == (("eth0",), 10_000)
    assert policy.service.metrics == MetricsPlace(address="127.0.0.1", port=9811)


def test_the_table_has_every_key_and_no_other() -> None:
    rows = [line.split("|")[2] for line in section("The keys").splitlines() if line.startswith("|")]
    told = re.findall(r"`([a-z-]+)`", " ".join(rows))
    assert sorted(told) == sorted(["version", *ATTACH, *DEVICE, *PROTECT, *SERVICE])
