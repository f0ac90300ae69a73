"""What is told of an attachment of which a part takes its packets by interrupts."""

from msgspec.structs import replace

from napctl.attach.attachment import planned
from napctl.attach.switch_way import in_way
from napctl.model.activity import judge
from napctl.model.change import Change, EpollChange, NapiChange, Transaction
from napctl.model.histogram import Histogram
from napctl.model.suspension import Suspension
from napctl.model.window import NapiWindow, Window
from tests.unit.attach.steps import attachment
from tests.unit.attach.targets import IFINDEX, NETNS, examination, instance, judged

PACKETS = Histogram(counts=(0, 1_000, *(0,) * 64))
WINDOW = Window(
    started_unix_ns=0, seconds=1.0, source="bpf", cpus=(), devices=(), lacks=(),
    napis=(NapiWindow(napi_id=300, device="eth0", ifindex=IFINDEX, netns=NETNS, softirq=PACKETS),),
)  # fmt: skip


def attached(*, of_300: bool, of_301: bool) -> Transaction:
    """Whether each of two instances polls."""
    off = in_way(Suspension(), None)
    target = judged(examination(instance(5, {300: 1}, pid=10), instance(5, {301: 1}, pid=11)))

    def given(change: Change) -> Change:
        match change:
            case NapiChange():
                polls = of_300 if change.napi_id == 300 else of_301
                return replace(change, after=Suspension().napi if polls else off.napi)
            case EpollChange():
                polls = of_300 if change.pid == 10 else of_301
                return replace(change, after=Suspension().epoll if polls else off.epoll)
        return change

    return attachment(tuple(map(given, planned(target, Suspension(), adapts=True))))


def test_who_takes_in_the_most_by_interrupts_is_not_said_to_be_inactive() -> None:
    assert judge(attached(of_300=True, of_301=True), WINDOW).verdict == "not active"
    found = judge(attached(of_300=False, of_301=True), WINDOW)
    assert (found.verdict, found.why) == ("interrupts", "so it was decided for those that take in the most")
    assert judge(attached(of_300=False, of_301=False), WINDOW).verdict == "interrupts"
