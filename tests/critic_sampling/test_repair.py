"""Which failing programs are repaired, worked by hand."""

from coderl.critic_sampling.repair import repair_candidates


def test_the_most_promising_failing_programs_are_repaired_and_ties_go_to_the_earlier():
    assert repair_candidates([0.1, 0.7, 0.3, 0.7], 3) == [1, 3, 2]


def test_all_are_repaired_where_more_are_asked_for_than_there_are():
    assert repair_candidates([0.1, 0.2], 4) == [1, 0]
