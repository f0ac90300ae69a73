"""What `attached` asks a device for between two windows may be refused, and is asked only where it is said."""

import pytest
from msgspec.structs import replace

import napctl.cli.attached as module
from napctl.kernel.netlink import Refused
from napctl.model.activity import Now
from napctl.model.change import NapiChange, Transaction
from napctl.model.settings import NapiSettings


def attachment(irq_suspend_timeout_ns: int) -> Transaction:
    after = NapiSettings(irq_suspend_timeout_ns=irq_suspend_timeout_ns)
    change = NapiChange(netns=1, device="eth0", ifindex=2, napi_id=8, before=NapiSettings(), after=after)
    return Transaction(boot_id="b", made_unix_ns=1, name="server", pid=1, changes=(change,))


NOW = Now(verdict="active")


def test_nice_values_are_told_of_what_suspends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "thread_nice", lambda _transaction: -19)
    told = [module._standing(attachment(timeout), NOW) for timeout in (20_000_000, 0)]
    assert [(each.protects, each.thread_nice) for each in told] == [(True, -19), (False, None)]


@pytest.mark.parametrize("error", [Refused("reading NAPI instances", 16, None), OSError(9, "gone")])
def test_what_the_kernel_refuses_between_two_windows_ends_nothing(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_transaction: Transaction) -> int:
        raise error

    monkeypatch.setattr(module, "thread_nice", refused)
    told = module._standing(attachment(20_000_000), NOW)
    assert replace(told, thread_nice=None) == told
