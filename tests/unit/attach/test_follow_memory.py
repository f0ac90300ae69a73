"""What a follower knows of its target beside what a look shows."""

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
