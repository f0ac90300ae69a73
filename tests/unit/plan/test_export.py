"""Exports: a plan in the words of other tools, and what they have no words for."""

import re
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.model.errors import BadInput, Unsupported
from napctl.model.machine import Coalescing, QueueCoalescing
from napctl.model.plan import Deferral, DevicePlan, Plan, RingSizes, settings
from napctl.model.settings import kernel_name
from napctl.plan.export import (
    ETHTOOL_FIELDS,
    LINK_NAMES,
    MOST_QUEUES,
    NM_FIELDS,
    NO_ETHTOOL_NAME,
    Format,
    ethtool_name,
    export,
)
from tests.strategies import PLANS

ETH0 = DevicePlan(
    name="eth0",
    driver="mlx5_core",
    bus="0000:03:00.0",
    rx_queues=8,
    tx_queues=8,
    coalescing=Coalescing(rx_usecs=50, rx_max_frames=64, tx_max_frames_irq=9, use_adaptive_rx=False, rx_cqe_frames=3),
    queues=(QueueCoalescing(queue=5, coalescing=Coalescing(rx_usecs=7, tx_max_frames=3)),),
    rings=RingSizes(rx=1024, tx=512),
    deferral=Deferral(gro_flush_timeout_ns=50_000),
)
ETH1 = DevicePlan(name="eth1.7", driver=None, rx_queues=1, tx_queues=1, coalescing=Coalescing(tx_usecs=150))
PLAN = Plan(goal="balanced", max_added_latency_ns=50_000, devices=(ETH0, ETH1))
ONE = replace(PLAN, devices=(ETH0,))

NMCLI_NAMES = frozenset(
    {
        "coalesce-adaptive-rx", "coalesce-adaptive-tx", "coalesce-pkt-rate-high", "coalesce-pkt-rate-low",
        "coalesce-rx-frames", "coalesce-rx-frames-high", "coalesce-rx-frames-irq", "coalesce-rx-frames-low",
        "coalesce-rx-usecs", "coalesce-rx-usecs-high", "coalesce-rx-usecs-irq", "coalesce-rx-usecs-low",
        "coalesce-sample-interval", "coalesce-stats-block-usecs", "coalesce-tx-frames", "coalesce-tx-frames-high",
        "coalesce-tx-frames-irq", "coalesce-tx-frames-low", "coalesce-tx-usecs", "coalesce-tx-usecs-high",
        "coalesce-tx-usecs-irq", "coalesce-tx-usecs-low",
    }
)  # fmt: skip
"""All that nmcli 1.42.4 --offline connection add takes."""


def needs_a_profile(coalescing: Coalescing | None, field: str) -> bool:
    """Adaptation by levels of the plan, which no format has words for, is no setting to make without them."""
    profile = {"use_adaptive_rx": "rx_profile", "use_adaptive_tx": "tx_profile"}.get(field)
    return profile is not None and bool(getattr(coalescing, field)) and getattr(coalescing, profile) is not None


def lines(text: str) -> list[str]:
    """Without comments and blanks."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def comments(text: str) -> str:
    """All comments as one line."""
    return " ".join(line.strip().removeprefix("# ") for line in text.splitlines() if line.strip().startswith("# "))


def test_ethtool_has_its_own_names_and_rings_come_first() -> None:
    text = export(PLAN, "ethtool")
    assert lines(text) == [
        "set -eu",
        "ethtool -G eth0 rx 1024 tx 512",
        "ethtool -C eth0 rx-usecs 50 rx-frames 64 tx-frames-irq 9 adaptive-rx off",
        "ethtool -Q eth0 queue_mask 0x20 --coalesce rx-usecs 7 tx-frames 3",
        "ethtool -C eth1.7 tx-usecs 150",
    ]
    assert text.startswith("#!/bin/sh\n")


def test_a_link_file_has_systemds_keys_and_keeps_the_names_that_udev_gives() -> None:
    assert lines(export(ONE, "systemd-link")) == [
        "[Match]",
        "Path=pci-0000:03:00.0",
        "[Link]",
        "NamePolicy=keep kernel database onboard slot path",
        "AlternativeNamesPolicy=database onboard slot path",
        "MACAddressPolicy=persistent",
        "RxBufferSize=1024",
        "TxBufferSize=512",
        "RxCoalesceSec=50us",
        "RxMaxCoalescedFrames=64",
        "TxMaxCoalescedIrqFrames=9",
        "UseAdaptiveRxCoalesce=no",
    ]
    virtio = replace(PLAN, devices=(replace(ETH1, bus="virtio0"),))
    assert "OriginalName=eth1.7" in export(virtio, "systemd-link").splitlines()


@pytest.mark.parametrize("devices", [(ETH0, ETH1), ()])
def test_a_link_file_is_for_one_device(devices: tuple[DevicePlan, ...]) -> None:
    with pytest.raises(BadInput, match="for one device"):
        export(replace(PLAN, devices=devices), "systemd-link")


def test_networkmanager_gets_what_its_profiles_can_hold() -> None:
    assert lines(export(PLAN, "networkmanager")) == [
        "set -eu",
        "profile=$(nmcli --get-values GENERAL.CON-UUID device show eth0)",
        'nmcli connection modify uuid "$profile" \\',
        "    ethtool.ring-rx 1024 \\",
        "    ethtool.ring-tx 512 \\",
        "    ethtool.coalesce-rx-usecs 50 \\",
        "    ethtool.coalesce-rx-frames 64 \\",
        "    ethtool.coalesce-tx-frames-irq 9 \\",
        "    ethtool.coalesce-adaptive-rx 0",
        "profile=$(nmcli --get-values GENERAL.CON-UUID device show eth1.7)",
        'nmcli connection modify uuid "$profile" \\',
        "    ethtool.coalesce-tx-usecs 150",
    ]


def test_networkmanagers_names_are_those_that_nmcli_takes() -> None:
    assert {f"coalesce-{ethtool_name(field)}" for field in NM_FIELDS} == NMCLI_NAMES


def test_ansible_gets_tasks_that_install_the_ethtool_script_and_a_unit_for_each_device() -> None:
    tasks: list[dict[str, Any]] = yaml.safe_load(export(PLAN, "ansible"))
    script, unit, service = tasks[:3]
    assert len(tasks) == 6
    assert script["ansible.builtin.copy"]["dest"] == "/usr/local/sbin/napctl-eth0"
    assert script["ansible.builtin.copy"]["content"] == export(ONE, "ethtool")
    assert script["ansible.builtin.copy"]["mode"] == "0755"
    assert "ExecStart=/usr/local/sbin/napctl-eth0\n" in unit["ansible.builtin.copy"]["content"]
    assert service["ansible.builtin.systemd"]["name"] == "napctl-eth0.service"
    assert script["register"] in service["ansible.builtin.systemd"]["state"]
    assert unit["register"] in service["ansible.builtin.systemd"]["state"]


def test_a_unit_names_its_device_as_systemd_escapes_it() -> None:
    tasks = yaml.safe_load(export(replace(PLAN, devices=(replace(ETH1, name="eth-1_a"),)), "ansible"))
    assert "BindsTo=sys-subsystem-net-devices-eth\\x2d1_a.device\n" in tasks[1]["ansible.builtin.copy"]["content"]


@pytest.mark.parametrize("form", get_args(Format))
def test_what_a_format_has_no_words_for_stands_in_its_comments(form: Format) -> None:
    said = comments(export(ONE, form))
    assert "NOT HERE" in said
    assert "rx-cqe-frames of eth0" in said
    assert "gro-flush-timeout of the NAPI instances of eth0" in said
    assert "napctl apply has them" in said
    assert ("of queue 5 of eth0" in said) is (form in ("systemd-link", "networkmanager"))


@pytest.mark.parametrize("name", ["-x", "a b", "{{x}}", "a;b", "eth@1", "ä"])
@pytest.mark.parametrize("form", get_args(Format))
def test_a_name_that_a_tool_would_read_as_something_else_is_refused(name: str, form: Format) -> None:
    with pytest.raises(BadInput, match="cannot be exported"):
        export(replace(PLAN, devices=(replace(ETH1, name=name),)), form)


DEFERRAL_ALONE = replace(ETH1, coalescing=None, deferral=Deferral(defer_hard_irqs=2, gro_flush_timeout_ns=50_000))


@pytest.mark.parametrize("form", get_args(Format))
def test_a_plan_of_which_nothing_can_be_expressed_is_refused(form: Format) -> None:
    names = r"defer-hard-irqs, gro-flush-timeout\): `napctl apply`"
    with pytest.raises(Unsupported, match=f"{form} has no words for anything in this plan .*{names}"):
        export(replace(PLAN, devices=(DEFERRAL_ALONE,)), form)


def test_ansible_gets_no_unit_that_would_do_nothing() -> None:
    text = export(replace(PLAN, devices=(ETH0, DEFERRAL_ALONE)), "ansible")
    assert len(yaml.safe_load(text)) == 3
    assert "gro-flush-timeout of the NAPI instances of eth1.7" in comments(text)


@given(PLANS, st.sampled_from(get_args(Format)))
def test_each_setting_of_any_plan_is_either_expressed_or_named_as_left_out(plan: Plan, form: Format) -> None:
    devices = tuple(replace(device, name=f"eth{number}") for number, device in enumerate(plan.devices))
    plan = replace(plan, devices=devices[:1] if form == "systemd-link" else devices)
    if form == "systemd-link" and not devices:
        return
    words = {"ethtool": ETHTOOL_FIELDS, "ansible": ETHTOOL_FIELDS, "networkmanager": NM_FIELDS}.get(form, LINK_NAMES)

    def expressed(device: DevicePlan) -> bool:
        queues = [each for each in device.queues if each.queue < MOST_QUEUES and words is ETHTOOL_FIELDS]
        blocks = [device.coalescing, *(each.coalescing for each in queues)]
        return any(settings(device.rings)) or any(
            field in words and not needs_a_profile(each, field) for each in blocks for field, _ in settings(each)
        )

    try:
        text = export(plan, form)
    except Unsupported:
        assert not any(map(expressed, plan.devices))
        return
    body = "\n".join(line for line in text.splitlines() if not line.strip().startswith("#"))
    for device in plan.devices:
        for field, _ in settings(device.coalescing):
            word = {
                "ethtool": ethtool_name(field),
                "ansible": ethtool_name(field),
                "networkmanager": f"coalesce-{ethtool_name(field)}",
                "systemd-link": LINK_NAMES.get(field, "\0"),
            }[form]
            there = re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", body) is not None
            there &= not needs_a_profile(device.coalescing, field)
            assert there or re.search(rf"NOT HERE: [^:]*\b{kernel_name(field)}\b", comments(text)), field
    if form == "ansible":
        assert len(yaml.safe_load(text)) == 3 * sum(map(expressed, plan.devices))


def test_every_setting_has_a_word_in_ethtool_or_is_known_to_have_none() -> None:
    names = [ethtool_name(field) for field in Coalescing.__struct_fields__ if field not in NO_ETHTOOL_NAME]
    assert len(set(names)) == len(names)
