"""What a run reports as it goes: JSON lines for scripts, trackers for people."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bigearth_prep.whole_file import write_text
from dinomm_train.background_curves import BackgroundCurves
from dinomm_train.config import RunConfig
from dinomm_train.errors import TrainError
from dinomm_train.trackers import open_trackers

JSON_LINES = "metrics.jsonl"
HEALTH_LINES = "health.jsonl"


class MetricsWriter:
    """Writes rows of named numbers under one run folder; the lines of JSON are the record."""

    def __init__(self, run: Path, trackers: Sequence[BackgroundCurves]) -> None:
        self._run = run
        self._trackers = trackers

    def write(self, step: int, values: Mapping[str, int | float]) -> None:
        """Add one row of training; it is on disk when this returns.

        Raises:
            TrainError: it cannot be written.
        """
        self._write(self._run / JSON_LINES, step, values)

    def write_health(self, step: int, values: Mapping[str, int | float]) -> None:
        """Add one row of health; it is on disk when this returns.

        Raises:
            TrainError: it cannot be written.
        """
        self._write(self._run / HEALTH_LINES, step, values)

    def _write(self, path: Path, step: int, values: Mapping[str, int | float]) -> None:
        try:
            with path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"step": step} | dict(values)) + "\n")
        except OSError as error:
            raise TrainError(
                f"the row of step {step} could not be written to {path} ({error.strerror}); see "
                "that there is space, then run the same command again: it goes on from the last "
                "checkpoint"
            ) from error
        for tracker in self._trackers:
            tracker.write(step, values)


@contextmanager
def open_metrics(run: Path, config: RunConfig, *, steps_done: int) -> Iterator[MetricsWriter]:
    """A writer that goes on after the rows of steps already done.

    Later rows are removed: they belong to steps that a killed run did after its last checkpoint,
    and which come again.
    """
    for path in (run / JSON_LINES, run / HEALTH_LINES):
        _remove_rows_after(path, steps_done)
    with open_trackers(run, config, steps_done=steps_done) as trackers:
        yield MetricsWriter(run, trackers)


def read_metrics(run: Path) -> list[dict[str, int | float]]:
    """All rows of training of a run, in order."""
    text = (run / JSON_LINES).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def read_health(run: Path, *, until_step: int = sys.maxsize) -> list[dict[str, int | float]]:
    """The rows of health of a run up to a step, in order; none where it has not been looked at."""
    path = run / HEALTH_LINES
    return [json.loads(line) for line in _rows_until(path, until_step)] if path.is_file() else []


def _remove_rows_after(path: Path, step: int) -> None:
    if path.is_file():
        write_text(path, "".join(_rows_until(path, step)))
    else:
        path.touch()


def _rows_until(path: Path, step: int) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        # A run that was killed while writing leaves half a line.
        if line.endswith("\n") and json.loads(line)["step"] <= step:
            yield line
