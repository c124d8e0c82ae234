"""The pieces of an evaluation: each learns once and predicts, on its own, on any process."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import xxhash
from jaxtyping import Float32

from bigearth_prep.whole_file import whole_file
from dinomm_train.evaluation.config import (
    RANDOM,
    SUPERVISED,
    EvaluationConfig,
    Protocol,
    SensorPair,
    SensorSet,
)
from dinomm_train.evaluation.contestants import Contestant
from dinomm_train.evaluation.protocol_config import (
    FinetuneConfig,
    LegacyConfig,
    LinearConfig,
)

_VERSION = 2
"""Of how jobs are done; predictions of another one are made anew."""

FEATURE_PROTOCOLS: tuple[Protocol, ...] = ("knn", "linear", "logistic")
"""Protocols that look at frozen features alone."""

_WITHOUT_CHANCE: tuple[Protocol, ...] = ("knn", "logistic")
"""Protocols whose result the labelled samples alone decide."""


Details = dict[str, str | int | float]
"""What validation chose for a fit, by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What learns from which labels, and what it then looks at."""

    network: str
    protocol: Protocol
    train_sensors: SensorSet
    test_sensors: tuple[SensorSet, ...]
    fraction: float
    """Share of the train split whose labels are used."""
    seed: int

    def __str__(self) -> str:
        return (
            f"{self.protocol} on {self.network}, {self.train_sensors}, labels of "
            f"{100 * self.fraction:g} %, seed {self.seed}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What a job says about samples it has not learnt from."""

    probabilities: Float32[np.ndarray, "sample class"]

    details: Details
    """What validation chose, by name."""


def plan_jobs(config: EvaluationConfig, contestants: Mapping[str, Contestant]) -> tuple[Job, ...]:
    """All jobs, those of one network and train sensor set together."""
    return tuple(
        Job(
            network=name,
            protocol=protocol,
            train_sensors=train,
            test_sensors=tests,
            fraction=fraction,
            seed=seed,
        )
        for name, contestant in contestants.items()
        for train, tests in _tests_by_train(config).items()
        for protocol in protocols_of(name, contestant, config.protocols)
        for fraction, seed in product(config.label_fractions, range(config.seeds))
        if not _repeats(protocol, fraction, seed)
    )


def protocols_of(
    name: str, contestant: Contestant, wanted: Sequence[Protocol]
) -> Iterator[Protocol]:
    """Those of the wanted protocols that make sense for this contestant, in their order."""
    if name == SUPERVISED:
        yield "finetune"
        return
    for protocol in wanted:
        if protocol in FEATURE_PROTOCOLS:
            yield protocol
        elif contestant.frozen is None:
            continue
        elif protocol == "legacy" or name != RANDOM:
            yield protocol


def pairs_of(config: EvaluationConfig) -> tuple[SensorPair, ...]:
    """The pairs of sensor sets that are scored: the same for both first, then crossed ones."""
    same = [SensorPair(train=one, test=one) for one in config.extraction.sensor_sets]
    return tuple(dict.fromkeys([*same, *config.crossed]))


def protocol_settings(
    job: Job, config: EvaluationConfig
) -> LinearConfig | FinetuneConfig | LegacyConfig | None:
    """The settings of the job's protocol, where it has any."""
    match job.protocol:
        case "linear":
            return config.linear
        case "finetune":
            return config.scratch if job.network == SUPERVISED else config.finetune
        case "legacy":
            return config.legacy
        case "knn" | "logistic":
            return None


class PredictionStore:
    """Predictions in files that are named after all that decides them."""

    def __init__(self, cache: Path, dataset_checksum: str, config: EvaluationConfig) -> None:
        self._folder = cache / "predictions"
        self._dataset_checksum = dataset_checksum
        self._config = config

    def path(self, job: Job, contestant: Contestant) -> Path:
        """Where the job's predictions lie, or will."""
        settings = protocol_settings(job, self._config)
        about = dataclasses.asdict(job) | {
            "version": _VERSION,
            "contestant": contestant.checksum,
            "dataset": self._dataset_checksum,
            "settings": settings and dataclasses.asdict(settings),
        }
        # A name in the table decides nothing but which settings hold, and these are there.
        del about["network"]
        key = xxhash.xxh3_64_hexdigest(json.dumps(about, sort_keys=True).encode())
        return self._folder / f"{job.protocol}-{key}.npz"

    def write(self, path: Path, predictions: Mapping[SensorSet, Prediction]) -> None:
        """Keep a job's predictions by test sensor set."""
        arrays = {name: one.probabilities for name, one in predictions.items()}
        details = {name: one.details for name, one in predictions.items()}
        with whole_file(path) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, details=np.array(json.dumps(details)), **arrays)

    def read(self, path: Path) -> dict[SensorSet, Prediction]:
        """What `write` kept there."""
        with np.load(path, allow_pickle=False) as stored:
            details: dict[SensorSet, Details] = json.loads(str(stored["details"]))
            return {
                name: Prediction(probabilities=stored[name], details=one)
                for name, one in details.items()
            }


def _tests_by_train(config: EvaluationConfig) -> dict[SensorSet, tuple[SensorSet, ...]]:
    pairs = pairs_of(config)
    trains = dict.fromkeys(pair.train for pair in pairs)
    return {train: tuple(pair.test for pair in pairs if pair.train == train) for train in trains}


def _repeats(protocol: Protocol, fraction: float, seed: int) -> bool:
    """Whether another seed gave the same already."""
    if protocol == "legacy":
        return seed > 0
    return seed > 0 and fraction == 1.0 and protocol in _WITHOUT_CHANCE
