"""Which processes suspension fits: every case, without a kernel."""

from napctl.attach.attach import plan
from napctl.attach.examine import EpollInstance, Examination, LocatedNapi
from napctl.attach.fitness import misfit
from napctl.kernel.processes import Process
from napctl.model.change import EpollChange, NapiChange
from napctl.model.machine import Napi
from napctl.model.settings import EpollParams, NapiSettings
from napctl.model.suspension import Suspension

UNSET = EpollParams(busy_poll_usecs=0, busy_poll_budget=0, prefer_busy_poll=False)
ABLE = NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0, irq_suspend_timeout_ns=0, threaded="disabled")


def instance(fd: int, sockets_by_napi: dict[int, int], params: EpollParams = UNSET) -> EpollInstance:
    return EpollInstance(
        fd=fd, params=params, watched=2 + sum(sockets_by_napi.values()), sockets_by_napi=sockets_by_napi
    )


def examination(*instances: EpollInstance, settings: NapiSettings = ABLE, known: bool = True) -> Examination:
    ids = {napi_id for each in instances for napi_id in each.sockets_by_napi} if known else set()
    return Examination(
        process=Process(pid=42, name="server", started_ticks=7),
        netns=1,
        instances=instances,
        napis={
            napi_id: LocatedNapi(Napi(napi_id=napi_id, ifindex=3, irq=None, settings=settings), "eth0", 1)
            for napi_id in ids
        },
    )


def reason(found: Examination) -> str:
    why = misfit(found)
    assert why is not None
    assert "\n" not in why
    return why


def test_a_server_whose_instances_follow_one_napi_instance_each_fits() -> None:
    assert misfit(examination(instance(5, {300: 10}))) is None
    assert misfit(examination(instance(3, {}), instance(5, {300: 10}), instance(6, {300: 1}))) is None
    assert misfit(examination(instance(5, {300: 10}), instance(6, {301: 10}))) is None


def test_without_an_epoll_instance_it_does_not_fit() -> None:
    assert "no epoll instance" in reason(examination())


def test_without_a_socket_that_a_napi_instance_feeds_it_does_not_fit() -> None:
    why = reason(examination(instance(3, {}), instance(5, {})))

    assert "loopback" in why
    assert "4 descriptors" in why


def test_one_epoll_instance_over_two_napi_instances_does_not_fit_and_both_are_named() -> None:
    why = reason(examination(instance(3, {300: 1}), instance(5, {301: 7, 300: 2})))

    assert "epoll instance 5" in why
    assert "2 of NAPI 300, 7 of NAPI 301" in why


def test_a_napi_instance_that_no_visible_device_has_does_not_fit() -> None:
    assert "NAPI 300 belongs to no device" in reason(examination(instance(5, {300: 1}), known=False))


def test_a_kernel_without_suspension_does_not_fit() -> None:
    without = NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0, irq_suspend_timeout_ns=None)

    assert "no IRQ suspension" in reason(examination(instance(5, {300: 1}), settings=without))
    assert "Linux 6.13" in reason(examination(instance(5, {300: 1}), settings=NapiSettings()))


def test_the_plan_changes_exactly_the_fed_instances_the_device_first() -> None:
    wanted = Suspension()
    found = examination(
        instance(3, {}), instance(5, {301: 10}), instance(6, {300: 2}), instance(7, {300: 1}, wanted.epoll)
    )

    changes = plan(found, wanted).changes

    napis = [change for change in changes if isinstance(change, NapiChange)]
    epolls = [change for change in changes if isinstance(change, EpollChange)]
    assert list(changes) == [*napis, *epolls], "the deferral must be there before the first task polls"
    assert [change.napi_id for change in napis] == [300, 301]
    assert [change.epoll_fd for change in epolls] == [5, 6], "3 has no socket of a device, 7 is as wanted already"
    for change in napis:
        assert change.after == wanted.napi
        assert change.before == NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0, irq_suspend_timeout_ns=0)
        assert change.before.threaded is None, "not touched, so not recorded"
