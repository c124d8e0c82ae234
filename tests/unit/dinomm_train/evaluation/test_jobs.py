import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dinomm_train.evaluation.config import (
    EvaluationConfig,
    ExtractionConfig,
    NetworkChoice,
    SensorPair,
)
from dinomm_train.evaluation.contestants import Contestant
from dinomm_train.evaluation.floors.statistics import ChannelStatistics
from dinomm_train.evaluation.jobs import Job, Prediction, PredictionStore, pairs_of, plan_jobs
from dinomm_train.evaluation.protocol_config import LinearConfig
from dinomm_train.models.frozen import ExpectedInput, untrained
from tests.checkpoint_fixture import TINY_MODEL, TINY_RUN

EXPECTS = ExpectedInput(
    channels=("B02", "VH"),
    units={},
    dtypes={},
    scheme="zscore",
    parameters={},
    crop_px=32,
    antialias=False,
    fill=0.0,
)
FLOOR = ChannelStatistics(("s2", "s1"), crop_px=8)


def contestant(*, features: bool = True, network: bool = True) -> Contestant:
    return Contestant(
        origin="",
        checksum=f"{features}-{network}",
        encoder=FLOOR if features else None,
        frozen=untrained(TINY_MODEL, EXPECTS, seed=0, origin="") if network else None,
        size=None,
    )


CONFIG = EvaluationConfig(
    network=NetworkChoice(checkpoint="x", untrained=TINY_RUN),
    dataset=Path("d"),
    cache=Path("c"),
    extraction=ExtractionConfig(sensor_sets=("s1", "s2")),
)
TABLE = {
    "random": contestant(),
    "statistics": contestant(network=False),
    "checkpoint": contestant(),
    "supervised": contestant(features=False),
}


def test_every_contestant_does_what_makes_sense_for_it() -> None:
    config = dataclasses.replace(CONFIG, protocols=("knn", "linear", "finetune", "legacy"))
    found = {(job.network, job.protocol) for job in plan_jobs(config, TABLE)}
    assert found == {
        ("random", "knn"),
        ("random", "linear"),
        ("random", "legacy"),
        ("statistics", "knn"),
        ("statistics", "linear"),
        ("checkpoint", "knn"),
        ("checkpoint", "linear"),
        ("checkpoint", "finetune"),
        ("checkpoint", "legacy"),
        ("supervised", "finetune"),
    }


def test_seeds_repeat_what_depends_on_chance_alone() -> None:
    config = dataclasses.replace(
        CONFIG, protocols=("knn", "linear", "legacy"), label_fractions=(0.1, 1.0), seeds=3
    )
    seeds: dict[tuple[str, float], list[int]] = {}
    for job in plan_jobs(config, {"checkpoint": contestant()}):
        if job.train_sensors == "s1":
            seeds.setdefault((job.protocol, job.fraction), []).append(job.seed)
    assert seeds == {
        ("knn", 0.1): [0, 1, 2],
        ("knn", 1.0): [0],
        ("linear", 0.1): [0, 1, 2],
        ("linear", 1.0): [0, 1, 2],
        ("legacy", 0.1): [0],
        ("legacy", 1.0): [0],
    }


def test_one_job_learns_on_a_sensor_set_and_looks_at_several() -> None:
    crossed = (SensorPair(train="s2", test="s1"), SensorPair(train="s2", test="s2"))
    config = dataclasses.replace(CONFIG, protocols=("knn",), crossed=crossed)
    assert [str(pair) for pair in pairs_of(config)] == ["s1", "s2", "s2 → s1"]
    jobs = plan_jobs(config, {"checkpoint": contestant()})
    assert [(job.train_sensors, job.test_sensors) for job in jobs] == [
        ("s1", ("s1",)),
        ("s2", ("s2", "s1")),
    ]


def job(**changes: Any) -> Job:  # noqa: ANN401
    return dataclasses.replace(
        Job(
            network="checkpoint",
            protocol="linear",
            train_sensors="s1",
            test_sensors=("s1",),
            fraction=1.0,
            seed=0,
        ),
        **changes,
    )


def test_predictions_lie_where_everything_that_decides_them_says(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path, "dataset", CONFIG)
    one = contestant()
    longer = dataclasses.replace(CONFIG, linear=LinearConfig(epochs=7))
    paths = {
        store.path(job(), one),
        store.path(job(seed=1), one),
        store.path(job(fraction=0.5), one),
        store.path(job(protocol="knn"), one),
        store.path(job(), contestant(network=False)),
        PredictionStore(tmp_path, "other", CONFIG).path(job(), one),
        PredictionStore(tmp_path, "dataset", longer).path(job(), one),
    }
    assert len(paths) == 7
    assert store.path(job(network="renamed"), one) in paths
    assert PredictionStore(tmp_path, "dataset", longer).path(job(protocol="knn"), one) in paths


def test_predictions_come_back_as_they_were(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path, "dataset", CONFIG)
    path = store.path(job(), contestant())
    numbers = torch.rand(3, 2).numpy()
    store.write(path, {"s1": Prediction(probabilities=numbers, details={"l2": 0.1, "a": "b"})})
    (found,) = store.read(path).items()
    assert found[0] == "s1"
    assert found[1].details == {"l2": 0.1, "a": "b"}
    assert np.array_equal(found[1].probabilities, numbers)
