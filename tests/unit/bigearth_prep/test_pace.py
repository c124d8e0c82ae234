"""Rates are those of about the last minute, whatever came before it."""

from dataclasses import dataclass

from bigearth_prep.pace import Pace


@dataclass
class FakeClock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


def after(pace: Pace, clock: FakeClock, *waits_s: float) -> list[bool]:
    """Whether each unit, counted after so many seconds, is a mark."""
    marks = []
    for seconds in waits_s:
        clock.now_s += seconds
        marks.append(pace.add(1))
    return marks


def test_marks_are_ten_seconds_apart_and_the_last_unit_is_one() -> None:
    clock = FakeClock()
    marks = after(Pace(8, clock=clock), clock, 4.0, 4.0, 4.0, 4.0, 4.0, 30.0, 1.0, 1.0)
    assert marks == [False, False, True, False, False, True, False, True]


def test_an_hour_of_slow_units_is_forgotten_a_minute_later() -> None:
    clock = FakeClock()
    pace = Pace(1000, clock=clock)
    after(pace, clock, *[360.0] * 10)
    assert pace.describe_rate() == "0.0/s, 99 h 00 min left"
    after(pace, clock, *[1.0] * 50)
    assert pace.describe_rate() != "1.0/s, 16 min left"
    after(pace, clock, *[1.0] * 10)
    assert pace.describe_rate() == "1.0/s, 16 min left"


def test_units_that_take_longer_than_ten_seconds_are_averaged_over_six() -> None:
    clock = FakeClock()
    pace = Pace(106, clock=clock)
    after(pace, clock, 500.0, 20.0, 20.0, 20.0, 20.0, 20.0, 40.0)
    assert pace.describe_rate() == "0.0/s, 38 min left"


def test_units_that_workers_finish_together_count_with_the_time_they_took_together() -> None:
    clock = FakeClock()
    pace = Pace(16, clock=clock)
    after(pace, clock, 160.0, *[0.0] * 7)
    assert pace.describe_rate() == "0.1/s, 3 min left"


def test_what_earlier_commands_have_done_is_counted_and_not_timed() -> None:
    clock = FakeClock()
    pace = Pace(117_100, done=41_200, clock=clock)
    after(pace, clock, 2.0, 2.0)
    assert pace.describe_count() == "41,202 of 117,100"
    assert pace.describe_rate() == "0.5/s, 42 h 10 min left"


def test_time_can_begin_after_the_first_unit() -> None:
    clock = FakeClock()
    pace = Pace(101, leaves_out_first=True, clock=clock)
    assert after(pace, clock, 300.0) == [True]
    assert pace.describe_rate() == ""
    after(pace, clock, 2.0, 2.0)
    assert pace.describe_rate() == "0.5/s, 3 min left"


def test_once_all_is_done_the_rate_is_the_mean_of_all() -> None:
    clock = FakeClock()
    pace = Pace(100, clock=clock)
    after(pace, clock, *[20.0] * 30, *[1.0] * 69)
    assert pace.describe_rate() == "1.0/s, 1 s left"
    after(pace, clock, 1.0)
    assert pace.describe_rate() == "0.1/s, 0 s left"
