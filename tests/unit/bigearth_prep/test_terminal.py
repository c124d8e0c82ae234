"""Progress is a line now and then in a log, and a bar on a terminal, with the same numbers."""

import sys
from dataclasses import dataclass

import pytest

from bigearth_prep.terminal import progress_bar


@dataclass
class FakeClock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_lines_of_a_log_come_every_ten_seconds_with_the_last_note(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = FakeClock()
    with progress_bar(1_200, "pairs", clock=clock) as advance:
        for second in range(24):
            clock.now_s += 1.0
            advance(50, "2 rejected" if second == 3 else "")
    assert capsys.readouterr().err.splitlines() == [
        "pairs: 500 of 1,200, 50.0/s, 14 s left, 2 rejected",
        "pairs: 1,000 of 1,200, 50.0/s, 4 s left, 2 rejected",
        "pairs: 1,200 of 1,200, 50.0/s, 0 s left, 2 rejected",
    ]


def test_a_count_that_goes_on_starts_where_it_stood_and_says_no_rate_before_it_knows_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = FakeClock()
    options = {"done": 41_200, "leaves_out_first": True, "clock": clock}
    with progress_bar(117_100, "steps", **options) as advance:  # type: ignore[arg-type]
        for seconds in (300.0, 5.0, 5.0):
            clock.now_s += seconds
            advance(1)
    assert capsys.readouterr().err.splitlines() == [
        "steps: 41,201 of 117,100",
        "steps: 41,203 of 117,100, 0.2/s, 105 h 25 min left",
    ]


def test_a_bar_on_a_terminal_shows_the_same_count_rate_and_note(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    clock = FakeClock()
    with progress_bar(200, "steps", done=100, clock=clock) as advance:
        for _ in range(20):
            clock.now_s += 2.0
            advance(1, "loss 2.5000")
    shown = capsys.readouterr().err
    for part in ("steps", "120/200", "0.5/s, 3 min left", "loss 2.5000"):
        assert part in shown
