"""Who is gone, who stands still, and who only takes long, as signs of life tell it."""

import pytest

from dinomm_train.census import START_FACTOR, Census, Sign


def sign(beat: int, marks: int, doing: str = "in step 7", *, steady: bool = True) -> Sign:
    return Sign(beat=beat, marks=marks, doing=doing, host="node-a", is_steady=steady)


def census() -> Census:
    return Census(silence_s=60.0, limit_s=300.0)


def test_a_sign_travels_as_text() -> None:
    one = Sign(beat=1, marks=2, doing="x", host="h", is_steady=True, end="why")
    assert Sign.from_text(one.to_text()) == one
    assert Sign.from_text(one.to_text().encode()) == one


def test_ranks_that_give_signs_and_get_on_are_left_alone() -> None:
    one = census()
    for second in range(0, 4000, 10):
        one.note(float(second), [sign(second, second), sign(second, second // 100)])
        assert one.judge(float(second)) is None


def test_a_rank_without_a_sign_is_named_with_what_it_was_doing() -> None:
    one = census()
    one.note(0.0, [sign(1, 1), sign(1, 1, "reading the batch of step 7")])
    one.note(61.0, [sign(2, 2), sign(1, 1, "reading the batch of step 7")])
    verdict = one.judge(61.0)
    assert verdict is not None
    assert verdict.accused == {1}
    assert verdict.message.startswith(
        "rank 1 on node-a has not been heard of for 61 s (it was reading the batch of step 7)"
    )


def test_a_broken_connection_makes_a_shorter_silence_tell() -> None:
    one = census()
    one.note(0.0, [sign(1, 1), sign(1, 1)])
    one.note(6.0, [sign(2, 1), sign(1, 1)])
    assert one.judge(6.0) is None
    assert one.judge(6.0, silence_s=5.0) is not None


def test_a_run_in_which_nobody_gets_on_hangs_and_all_are_told_of() -> None:
    one = census()
    one.note(0.0, [sign(1, 1), sign(1, 1, "reading the batch of step 7")])
    one.note(301.0, [sign(2, 1), sign(2, 1, "reading the batch of step 7")])
    verdict = one.judge(301.0)
    assert verdict is not None
    assert verdict.accused == frozenset()
    assert verdict.message == (
        "no progress for 301 s: rank 0 on node-a is in step 7; "
        "rank 1 on node-a is reading the batch of step 7"
    )


def test_ranks_that_wait_for_one_that_gets_on_are_left_alone() -> None:
    one = census()
    for second in range(0, 4000, 10):
        one.note(float(second), [sign(second, second), sign(second, 1)])
        assert one.judge(float(second)) is None
    one.note(4301.0, [sign(4300, 3990), sign(4300, 1)])
    assert one.judge(4301.0) is not None


def test_of_a_run_that_stands_still_the_rank_that_fell_silent_is_named() -> None:
    one = Census(silence_s=3.0, limit_s=3.0)
    one.note(0.0, [sign(1, 1), sign(1, 1)])
    one.note(0.2, [sign(2, 1), sign(2, 1)])
    one.note(3.1, [sign(3, 1), sign(2, 1)])
    verdict = one.judge(3.1)
    assert verdict is not None
    assert verdict.accused == {1}
    assert verdict.message.startswith("rank 1 on node-a has not been heard of for 3 s")


def test_of_a_run_that_stands_still_a_rank_that_was_heard_of_since_is_not_blamed() -> None:
    one = Census(silence_s=3.0, limit_s=3.0)
    one.note(0.0, [sign(1, 1), sign(1, 1)])
    one.note(1.7, [sign(2, 1), sign(2, 1)])
    one.note(3.1, [sign(3, 1), sign(2, 1)])
    verdict = one.judge(3.1)
    assert verdict is not None
    assert verdict.accused == frozenset()


def test_start_up_may_take_longer_than_a_step() -> None:
    one = census()
    one.note(0.0, [sign(1, 1, steady=False)])
    one.note(START_FACTOR * 300.0, [sign(2, 1, steady=False)])
    assert one.judge(START_FACTOR * 300.0) is None
    one.note(START_FACTOR * 300.0 + 1, [sign(3, 1, steady=False)])
    assert one.judge(START_FACTOR * 300.0 + 1) is not None


def test_a_run_with_a_long_pause_is_given_that_much_more_time() -> None:
    one = census()
    one.note(0.0, [sign(1, 1)])
    one.note(200.0, [sign(2, 2)])
    one.note(700.0, [sign(3, 2)])
    assert one.judge(700.0) is None
    one.note(701.0, [sign(4, 2)])
    assert one.judge(701.0) is not None


@pytest.mark.parametrize("end", ["", "the disk is full"])
def test_a_rank_that_has_ended_well_may_be_silent_and_one_that_has_not_is_quoted(end: str) -> None:
    one = census()
    ended = Sign(beat=1, marks=1, doing="x", host="node-b", is_steady=True, end=end)
    one.note(0.0, [sign(1, 1), ended])
    one.note(100.0, [sign(2, 2), ended])
    verdict = one.judge(100.0)
    assert (verdict is not None) == bool(end)
    if verdict is not None:
        assert verdict.message == "rank 1 on node-b ended: the disk is full"


def test_a_process_that_was_stopped_itself_does_not_blame_the_others() -> None:
    one = census()
    one.note(0.0, [sign(1, 1), sign(1, 1)])
    one.forgive(5000.0)
    assert one.judge(5001.0) is None
