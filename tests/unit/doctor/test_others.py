"""Promises of the rule about other managers: told only where both set the same."""

from msgspec.structs import replace

from napctl.attach.objections import INSISTED, WITHIN_SECONDS
from napctl.doctor.rules import diagnose
from napctl.model.finding import Checkup
from napctl.model.other_manager import Concern, Held, OtherManager, Touch
from tests.unit.doctor.checkups import checkup, only, row

FILE = "/etc/tuned/web/tuned.conf"


def both(what: Concern = "coalescing", devices: tuple[str, ...] = ("eth*",), on: str = "eth0") -> Checkup:
    """tuned sets coalescing of these devices, napctl `what` of eth0."""
    touch = Touch(what="coalescing", devices=devices, source=FILE)
    tuned = OtherManager(name="tuned", pid=8, how="when its profile is applied", touches=(touch,))
    balance = OtherManager(name="irqbalance", pid=9, touches=(Touch(what="interrupt affinity"),))
    return replace(checkup(row()), managers=(balance, tuned), held=(Held(what=what, device=on),))


def test_who_sets_the_same_is_named_with_his_file_and_when_he_does_it() -> None:
    found = only(both())
    assert (found.rule, found.where, found.severity, found.certainty) == ("set-by-two", "eth0", "risk", "likely")
    assert found.title == "tuned sets coalescing of eth0, and so does napctl"
    assert found.evidence[0].source == FILE
    assert "when its profile is applied" in found.consequence
    assert "sets it again twice, and leaves it to the other at the third time within ten minutes" in found.consequence
    assert (INSISTED, WITHIN_SECONDS) == (3, 600), "as the service does"


def test_whose_devices_are_not_known_may_set_it() -> None:
    found = only(both(devices=()))
    assert (found.title, found.certainty) == ("tuned may set coalescing of eth0, and so does napctl", "possible")


def test_who_sets_something_else_or_elsewhere_is_no_finding() -> None:
    assert diagnose(both(what="rings")) == ()
    assert diagnose(both(devices=("ens*",))) == ()
    assert diagnose(replace(both(), held=())) == (), "napctl has set nothing"
    assert diagnose(both(on="eth7")) == (), "it was not looked at"
