"""Rows reach a tracker behind the steps' back; one that fails or hangs is only warned of."""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from dinomm_train.background_curves import BackgroundCurves, end_all


@dataclass
class FakeCurves:
    """Takes rows where `before` lets it."""

    before: Callable[[int], object] = lambda _: None
    rows: list[int] = field(default_factory=list)
    is_closed: bool = False

    def write(self, step: int, _: Mapping[str, int | float]) -> None:
        self.before(step)
        self.rows.append(step)

    def close(self) -> None:
        self.is_closed = True


def fail_at(*steps: int) -> Callable[[int], None]:
    def before(step: int) -> None:
        if step in steps:
            raise RuntimeError("503\nserver restarts")

    return before


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_rows_arrive_in_order_before_the_tracker_is_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    curves = FakeCurves()
    background = BackgroundCurves("mlflow", curves)
    for step in range(50):
        background.write(step, {"loss": 1.0})
    end_all([background])
    assert (curves.rows, curves.is_closed) == (list(range(50)), True)
    assert warnings_of(caplog) == []


def test_an_outage_is_warned_of_once_by_name_and_once_more_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    curves = FakeCurves(fail_at(20, 30, 50))
    background = BackgroundCurves("mlflow", curves)
    for step in (10, 20, 30, 40, 50):
        background.write(step, {"loss": 1.0})
    end_all([background])
    assert (curves.rows, curves.is_closed) == ([10, 40], True)
    first, over, second = warnings_of(caplog)
    assert first.startswith(
        "mlflow has not taken the row of step 20 (RuntimeError: 503 server restarts); "
    )
    assert over == "mlflow takes rows again, from that of step 40 on"
    assert "step 50" in second


def test_a_tracker_that_fails_at_its_end_is_only_warned_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    curves = FakeCurves()
    monkeypatch.setattr(curves, "close", lambda: fail_at(0)(0))
    end_all([BackgroundCurves("wandb", curves)])
    assert "wandb has not taken the end of the run" in warnings_of(caplog)[0]


def test_a_tracker_that_answers_nothing_holds_up_neither_steps_nor_the_end_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = threading.Event()
    curves = FakeCurves(lambda _: answer.wait(60))
    slow = [BackgroundCurves(name, curves) for name in ("mlflow", "wandb")]
    for one in slow:
        one.write(10, {"loss": 1.0})
    late = threading.Timer(5.0, answer.set)
    late.start()
    end_all(slow, last_s=0.1)
    assert curves.rows == [], "the end waited for the answer"
    late.cancel()
    answer.set()
    for name, said in zip(("mlflow", "wandb"), warnings_of(caplog), strict=True):
        assert said.startswith(f"{name} has not taken all rows by the end")
