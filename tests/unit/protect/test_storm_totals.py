"""What storm control has dropped is told by reason, for each storm and in all."""

from napctl.model.storm import BY_REASON, StormCounts, StormTally
from napctl.protect.storm_totals import StormTotals


def counts(**dropped: int) -> StormCounts:
    return StormCounts(
        by_reason={each: StormTally(dropped_packets=dropped.get(each.replace(" ", "_"), 0)) for each in BY_REASON}
    )


def test_a_storm_is_told_by_reason_the_most_first_and_the_next_one_begins_anew() -> None:
    totals = StormTotals()
    totals.add({2: counts(broadcast=5, no_listener=900)})
    totals.add({2: counts(broadcast=20, no_listener=1000)})
    assert totals.limiting == (2,)
    assert totals.told(2) == (
        "storm control dropped 1,020 packets: 1,000 to ports where nobody listens, 20 of broadcast"
    )
    assert not totals.limiting
    totals.add({2: counts(broadcast=27, no_listener=1000)})
    assert totals.told(2) == "storm control dropped 7 packets: 7 of broadcast"
    assert totals.told(2) == "storm control dropped nothing"


def test_totals_are_of_all_devices_and_storms_and_go_on_with_a_program_that_is_attached_anew() -> None:
    totals = StormTotals()
    totals.add({2: counts(multicast=10), 3: counts(DHCP=1)})
    totals.told(2)
    totals.add({2: counts(multicast=4)})
    assert totals.by_device == {2: 14, 3: 1}
    assert totals.by_reason == dict.fromkeys(BY_REASON, 0) | {"multicast": 14, "DHCP": 1}
