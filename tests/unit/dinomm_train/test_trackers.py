"""Rows reach each tracker through its own library, stood in for here at what it documents."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dinomm_train.config import OutputConfig, RunConfig, Tracker
from dinomm_train.config_text import override_config
from dinomm_train.errors import TrainError
from dinomm_train.metrics import open_metrics, read_health, read_metrics


def with_trackers(*names: Tracker) -> RunConfig:
    return replace(RunConfig(), output=OutputConfig(trackers=names))


def module(name: str, **members: object) -> ModuleType:
    stand_in = ModuleType(name)
    vars(stand_in).update(members)
    return stand_in


@dataclass
class FakeWandb:
    """`wandb.init` gives a run with `log(data, step=...)` and `finish()`."""

    settings: dict[str, Any] = field(default_factory=dict)
    rows: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    is_finished: bool = False

    def init(self, **settings: Any) -> "FakeWandb":  # noqa: ANN401 (as the library's)
        self.settings = settings
        return self

    def log(self, data: dict[str, float], step: int) -> None:
        self.rows.append((step, data))

    def finish(self) -> None:
        self.is_finished = True


def test_rows_reach_weights_and_biases_under_one_name_per_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = []
    for _ in range(2):
        wandb = FakeWandb()
        monkeypatch.setitem(sys.modules, "wandb", module("wandb", init=wandb.init))
        with open_metrics(tmp_path, with_trackers("wandb"), steps_done=0) as metrics:
            metrics.write(10, {"loss": 2.5})
        assert (wandb.rows, wandb.is_finished) == ([(10, {"loss": 2.5})], True)
        assert wandb.settings["resume"] == "allow"
        assert wandb.settings["config"]["schedule.epochs"] == 100
        names.append(wandb.settings["id"])
    assert names[0] == names[1]


@dataclass
class FakeMlflow:
    """`MlflowClient` with experiments, runs and `log_batch` of metrics and parameters."""

    uris: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    metrics: list[tuple[str, str, float, int]] = field(default_factory=list)
    parameters: dict[str, str] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    entities: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(
            Metric=lambda key, value, _, step: (key, value, step),
            Param=lambda key, value: (key, value),
        )
    )

    def MlflowClient(self, tracking_uri: str) -> "FakeMlflow":  # noqa: N802 (the library's name)
        self.uris.append(tracking_uri)
        return self

    def get_experiment_by_name(self, _: str) -> None:
        return None

    def create_experiment(self, _: str) -> str:
        return "7"

    def create_run(self, experiment_id: str, run_name: str) -> SimpleNamespace:
        assert (experiment_id, bool(run_name)) == ("7", True)
        self.runs.append(f"run-{len(self.runs)}")
        return SimpleNamespace(info=SimpleNamespace(run_id=self.runs[-1]))

    def log_batch(self, run_id: str, metrics: list[Any] = (), params: list[Any] = ()) -> None:  # type: ignore[assignment]
        assert len(metrics) <= 1000
        assert len(params) <= 100
        self.metrics += [(run_id, *metric) for metric in metrics]
        self.parameters |= dict(params)

    def set_terminated(self, run_id: str) -> None:
        self.ended.append(run_id)


def test_rows_reach_one_run_of_mlflow_however_often_the_command_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = FakeMlflow()
    stand_in = module("mlflow", MlflowClient=mlflow.MlflowClient, entities=mlflow.entities)
    monkeypatch.setitem(sys.modules, "mlflow", stand_in)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for step in (10, 20):
        with open_metrics(tmp_path, with_trackers("mlflow"), steps_done=step - 10) as metrics:
            metrics.write(step, {"loss": 2.5, "epoch": 1})
    assert mlflow.runs == ["run-0"]
    assert mlflow.metrics == [
        ("run-0", name, value, step) for step in (10, 20) for name, value in row(1).items()
    ]
    assert mlflow.parameters["schedule.epochs"] == "100"
    assert mlflow.ended == ["run-0", "run-0"]
    assert mlflow.uris == [f"sqlite:///{tmp_path / 'mlflow.db'}"] * 2


def test_a_server_that_goes_away_ends_no_run_and_every_row_is_a_line_of_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mlflow, wandb = FakeMlflow(), FakeWandb()
    clients = module("mlflow", MlflowClient=mlflow.MlflowClient, entities=mlflow.entities)
    monkeypatch.setitem(sys.modules, "mlflow", clients)
    monkeypatch.setitem(sys.modules, "wandb", module("wandb", init=wandb.init))
    with open_metrics(tmp_path, with_trackers("mlflow", "wandb"), steps_done=0) as metrics:
        for call in ("log_batch", "set_terminated"):
            monkeypatch.setattr(mlflow, call, refuse)
        monkeypatch.setattr(wandb, "log", refuse)
        metrics.write(10, {"loss": 2.5})
        metrics.write_health(10, {"health/both/rankme": 7.0})
        metrics.write(20, {"loss": 1.5})
    assert [row["step"] for row in read_metrics(tmp_path)] == [10, 20]
    assert len(read_health(tmp_path)) == 1
    assert wandb.is_finished
    for name in ("mlflow", "wandb"):
        assert caplog.text.count(f"{name} has not taken") == 1


def refuse(*_: object, **__: object) -> None:
    raise ConnectionError("connection refused")


def test_a_tracker_that_cannot_be_opened_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", module("wandb", init=refuse))
    message = "names wandb, which cannot be opened .ConnectionError: connection refused.*login"
    opening = open_metrics(tmp_path, with_trackers("wandb"), steps_done=0)
    with pytest.raises(TrainError, match=message), opening:
        pass


def row(epoch: int) -> Mapping[str, float]:
    return {"loss": 2.5, "epoch": float(epoch)}


def test_a_library_that_is_missing_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = with_trackers("tensorboard", "wandb")
    message = "names wandb, which is not installed .*pip install wandb"
    with pytest.raises(TrainError, match=message), open_metrics(tmp_path, config, steps_done=0):
        pass


def test_without_trackers_rows_are_lines_of_json_alone(tmp_path: Path) -> None:
    with open_metrics(tmp_path, with_trackers(), steps_done=0) as metrics:
        metrics.write(1, {"loss": 1.0})
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 1.0}]
    assert not (tmp_path / "tensorboard").exists()


def test_trackers_are_chosen_by_name_and_a_wrong_one_is_refused() -> None:
    chosen = override_config(RunConfig(), ["output.trackers=['wandb', 'mlflow']"])
    assert chosen.output.trackers == ("wandb", "mlflow")
    with pytest.raises(TrainError, match="must be one of tensorboard, wandb, mlflow"):
        override_config(RunConfig(), ["output.trackers=['wanda']"])
    with pytest.raises(TrainError, match="must be a list"):
        override_config(RunConfig(), ["output.trackers=3"])
