"""Where a run's numbers are drawn: TensorBoard, Weights & Biases, MLflow, each by its library."""

import importlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import xxhash
from torch.utils.tensorboard import SummaryWriter

from bigearth_prep.whole_file import write_text
from dinomm_train.background_curves import BackgroundCurves, Curves, end_all, in_one_line
from dinomm_train.config import RunConfig, Tracker
from dinomm_train.config_text import config_leaves
from dinomm_train.errors import TrainError

TENSORBOARD = "tensorboard"
_PROJECT = "bigearth-dino"
_MLFLOW_ID = "mlflow-run-id"
_MOST_MLFLOW_VALUES = 1000
"""Metrics that MLflow takes in one call."""

_MOST_MLFLOW_PARAMETERS = 100
"""Parameters that MLflow takes in one call."""


@contextmanager
def open_trackers(
    run: Path, config: RunConfig, *, steps_done: int
) -> Iterator[list[BackgroundCurves]]:
    """The run's trackers, going on after the steps already done; once open, none raises an error.

    Raises:
        TrainError: a tracker's package is not installed, or it cannot be opened.
    """
    opened: list[BackgroundCurves] = []
    try:
        for name in config.output.trackers:
            opened.append(BackgroundCurves(name, _open(name, run, config, steps_done)))  # noqa: PERF401
        yield opened
    finally:
        end_all(opened)


def _open(name: Tracker, run: Path, config: RunConfig, steps_done: int) -> Curves:
    try:
        return _OPENERS[name](run, config, steps_done)
    except TrainError:
        raise
    except Exception as error:
        raise TrainError(
            f"output.trackers names {name}, which cannot be opened ({in_one_line(error)}); mend "
            "its address or login, or leave it out"
        ) from error


class _TensorBoard:
    def __init__(self, run: Path, steps_done: int) -> None:
        # The board hides later points instead of removing them.
        self._board = SummaryWriter(str(run / TENSORBOARD), purge_step=steps_done + 1)

    def write(self, step: int, values: Mapping[str, int | float]) -> None:
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._board.close()


class _WeightsAndBiases:
    """One run of W&B per run folder; without a network set WANDB_MODE=offline, and sync later."""

    def __init__(self, run: Path, config: RunConfig) -> None:
        wandb = _import("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=run.name,
            id=xxhash.xxh3_64_hexdigest(str(run.resolve()).encode()),
            resume="allow",
            dir=str(run),
            config=dict(config_leaves(config)),
        )

    def write(self, step: int, values: Mapping[str, int | float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    """One run of MLflow per run folder; MLFLOW_TRACKING_URI says where, else the folder itself."""

    def __init__(self, run: Path, config: RunConfig) -> None:
        self._mlflow = _import("mlflow")
        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.resolve() / 'mlflow.db'}"
        self._client = self._mlflow.MlflowClient(tracking_uri=place)
        self._run_id = self._find_run(run) or self._start_run(run, config)

    def write(self, step: int, values: Mapping[str, int | float]) -> None:
        now_ms = int(time.time() * 1000)
        metrics = [
            self._mlflow.entities.Metric(name, float(value), now_ms, step)
            for name, value in values.items()
        ]
        for first in range(0, len(metrics), _MOST_MLFLOW_VALUES):
            some = metrics[first : first + _MOST_MLFLOW_VALUES]
            self._client.log_batch(self._run_id, metrics=some)

    def close(self) -> None:
        self._client.set_terminated(self._run_id)

    def _find_run(self, run: Path) -> str:
        file = run / _MLFLOW_ID
        return file.read_text(encoding="utf-8").strip() if file.is_file() else ""

    def _start_run(self, run: Path, config: RunConfig) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = (
            self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        )
        started = str(self._client.create_run(experiment_id, run_name=run.name).info.run_id)
        parameters = [
            self._mlflow.entities.Param(key, str(value)) for key, value in config_leaves(config)
        ]
        for first in range(0, len(parameters), _MOST_MLFLOW_PARAMETERS):
            some = parameters[first : first + _MOST_MLFLOW_PARAMETERS]
            self._client.log_batch(started, params=some)
        write_text(run / _MLFLOW_ID, started + "\n")
        return started


_OPENERS: dict[Tracker, Callable[[Path, RunConfig, int], Curves]] = {
    "tensorboard": lambda run, _, steps_done: _TensorBoard(run, steps_done),
    "wandb": lambda run, config, _: _WeightsAndBiases(run, config),
    "mlflow": lambda run, config, _: _MLflow(run, config),
}


def _import(name: Tracker) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TrainError(
            f"output.trackers names {name}, which is not installed ({error}); pip install {name}, "
            "or leave it out"
        ) from error
