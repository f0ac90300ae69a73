"""What a follower knows of its target beside what a look shows."""

import time

from napctl.attach.attach_options import AttachOptions
from napctl.attach.follow_memory import Known
from tests.unit.attach.steps import WANTED, attached, workers
from tests.unit.attach.targets import examination


def test_a_group_that_had_outgrown_its_program_is_steered_again_when_it_fits_though_its_workers_are_the_same() -> None:
    """As after other channels: workers that have starved are not tried again for so long, these only mixed queues."""
    fits, outgrown = (examination(*workers(2), queues=queues) for queues in (2, 3))
    known = Known(AttachOptions(suspension=WANTED, steer=True))
    assert [len(each.members) for each in known.judged(fits, None).choice.steered] == [2]

    for transaction in (attached(fits, steer=True), None):
        now = known.judged(outgrown, transaction)
        assert now.choice.empty
        assert {each.key for each in outgrown.instances} == known.standing().keys()

    now = known.judged(fits, None)
    assert [len(each.members) for each in now.choice.steered] == [2]
    assert not known.standing()


def test_what_has_starved_is_not_tried_again_for_ten_minutes_though_somebody_asks_for_it() -> None:
    known, (instance,) = Known(AttachOptions(suspension=WANTED)), workers(1)
    known.harm(instance.key, "it starved")
    assert not known.try_anew()
    assert dict(known.standing()) == {instance.key: "it starved"}
    assert 599 < known.next_try() - time.monotonic() <= 600
