"""Rows on their way to a tracker, in the background: what becomes of it never stops a run."""

import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

_LAST_S = 20.0
"""How long the end of a run waits for rows that trackers have not yet taken."""

_log = logging.getLogger(__name__)


@runtime_checkable
class Curves(Protocol):
    """Takes rows of named numbers."""

    def write(self, step: int, values: Mapping[str, int | float]) -> None:
        """Add one row."""

    def close(self) -> None:
        """Hand over what is left."""


class BackgroundCurves:
    """Hands rows on in a thread of its own; failures are warned of, and steps wait for nothing.

    A client whose server is away tries again for minutes before it gives up: waited for within a
    step, each row would stop all ranks for as long as a hang is allowed to last.
    """

    def __init__(self, name: str, curves: Curves) -> None:
        self._name = name
        self._curves = curves
        self._rows: queue.SimpleQueue[tuple[int, Mapping[str, int | float]] | None] = (
            queue.SimpleQueue()
        )
        self._is_failing = False
        self._thread = threading.Thread(target=self._hand_over, name=f"{name}-rows", daemon=True)
        self._thread.start()

    def write(self, step: int, values: Mapping[str, int | float]) -> None:
        """Take one row, and return at once."""
        self._rows.put((step, dict(values)))

    def end(self) -> None:
        """Expect no further row."""
        self._rows.put(None)

    def wait(self, until_s: float) -> None:
        """Return when all rows have been handed over or given up, or at this time."""
        self._thread.join(max(until_s - time.monotonic(), 0.0))
        if self._thread.is_alive():
            _log.warning(
                "%s has not taken all rows by the end; metrics.jsonl and health.jsonl hold every "
                "row",
                self._name,
            )

    def _hand_over(self) -> None:
        while (row := self._rows.get()) is not None:
            step, values = row
            try:
                self._curves.write(step, values)
            except Exception as error:  # noqa: BLE001 (libraries and servers fail in any way)
                self._note_failure(f"the row of step {step}", error)
            else:
                self._note_success(step)
        try:
            self._curves.close()
        except Exception as error:  # noqa: BLE001 (as above)
            self._note_failure("the end of the run", error)

    def _note_failure(self, what: str, error: Exception) -> None:
        if not self._is_failing:
            _log.warning(
                "%s has not taken %s (%s); training goes on, and metrics.jsonl and health.jsonl "
                "hold every row",
                self._name,
                what,
                in_one_line(error),
            )
        self._is_failing = True

    def _note_success(self, step: int) -> None:
        if self._is_failing:
            _log.warning("%s takes rows again, from that of step %d on", self._name, step)
        self._is_failing = False


def end_all(curves: Sequence[BackgroundCurves], *, last_s: float = _LAST_S) -> None:
    """Return when all trackers have all rows, or after a while."""
    for one in curves:
        one.end()
    until_s = time.monotonic() + last_s
    for one in curves:
        one.wait(until_s)


def in_one_line(error: Exception) -> str:
    """The error's type and what it says, shortened to what a line can hold."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
