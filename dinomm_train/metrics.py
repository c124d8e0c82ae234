"""What a run reports as it goes: JSON lines for scripts, trackers for people."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from bigearth_prep.whole_file import write_text
from dinomm_train.config import RunConfig
from dinomm_train.trackers import Curves, open_trackers

JSON_LINES = "metrics.jsonl"
HEALTH_LINES = "health.jsonl"


class MetricsWriter:
    """Writes rows of named numbers under one run folder."""

    def __init__(self, lines: TextIO, health_lines: TextIO, trackers: Sequence[Curves]) -> None:
        self._lines, self._health_lines = lines, health_lines
        self._trackers = trackers

    def write(self, step: int, values: Mapping[str, int | float]) -> None:
        """Add one row of training; it is on disk when this returns."""
        self._write(self._lines, step, values)

    def write_health(self, step: int, values: Mapping[str, int | float]) -> None:
        """Add one row of health; it is on disk when this returns."""
        self._write(self._health_lines, step, values)

    def _write(self, lines: TextIO, step: int, values: Mapping[str, int | float]) -> None:
        lines.write(json.dumps({"step": step} | dict(values)) + "\n")
        lines.flush()
        for tracker in self._trackers:
            tracker.write(step, values)


@contextmanager
def open_metrics(run: Path, config: RunConfig, *, steps_done: int) -> Iterator[MetricsWriter]:
    """A writer that goes on after the rows of steps already done.

    Later rows are removed: they belong to steps that a killed run did after its last checkpoint,
    and which come again.
    """
    with (
        _open_lines(run / JSON_LINES, steps_done) as lines,
        _open_lines(run / HEALTH_LINES, steps_done) as health_lines,
        open_trackers(run, config, steps_done=steps_done) as trackers,
    ):
        yield MetricsWriter(lines, health_lines, trackers)


def read_metrics(run: Path) -> list[dict[str, int | float]]:
    """All rows of training of a run, in order."""
    text = (run / JSON_LINES).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def read_health(run: Path, *, until_step: int = sys.maxsize) -> list[dict[str, int | float]]:
    """The rows of health of a run up to a step, in order; none where it has not been looked at."""
    path = run / HEALTH_LINES
    return [json.loads(line) for line in _rows_until(path, until_step)] if path.is_file() else []


def _open_lines(path: Path, steps_done: int) -> TextIO:
    if path.is_file():
        write_text(path, "".join(_rows_until(path, steps_done)))
    return path.open("a", encoding="utf-8")


def _rows_until(path: Path, step: int) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        # A run that was killed while writing leaves half a line.
        if line.endswith("\n") and json.loads(line)["step"] <= step:
            yield line
