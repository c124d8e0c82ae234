"""The table of scores: every network, protocol, pair of sensor sets and share of labels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64, UInt8

from dinomm_train.evaluation.bootstrap import MEASURES, interval, resample_scores
from dinomm_train.evaluation.breakdown import Group
from dinomm_train.evaluation.config import RANDOM, SUPERVISED, Protocol, SensorPair
from dinomm_train.evaluation.jobs import Details, Prediction
from dinomm_train.evaluation.scores import Scores, score_probabilities


@dataclass(frozen=True, kw_only=True, slots=True)
class RowKey:
    """What a row of the table is about."""

    network: str
    protocol: Protocol
    sensors: SensorPair
    fraction: float
    """Share of the train split whose labels were used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A score, how it varies over seeds, and how it would over other test samples."""

    mean: float
    """Over seeds."""

    spread: float | None
    """Standard deviation over seeds; none of a single one."""

    low: float
    high: float
    """Bounds of the 95 % bootstrap interval of the mean."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRow:
    """How well one class is found, on average over seeds."""

    name: str
    positives: int
    ap: float | None
    """None where no test sample has the class."""
    f1: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupRow:
    """Scores over some of the test samples, on average over seeds."""

    kind: str
    name: str
    samples: int
    micro_ap: float
    macro_ap: float


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixRow:
    """One row of the table."""

    key: RowKey
    seeds: int
    scores: dict[str, Estimate]
    """By measure."""

    gains: dict[str, Estimate]
    """Over the untrained network's row (of `finetune`: over training from scratch), on the same
    resamples; empty where that is not in the table."""

    classes: tuple[ClassRow, ...]
    groups: tuple[GroupRow, ...]
    details: tuple[Details, ...]
    """What validation chose, seed by seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredSamples:
    """What predictions are held against."""

    labels: UInt8[np.ndarray, "sample class"]
    class_names: tuple[str, ...]
    groups: tuple[Group, ...]
    resamples: Int64[np.ndarray, "resample sample"]
    """How often each sample is in each resample."""


def build_rows(
    predictions: Mapping[RowKey, Sequence[Prediction]], test: ScoredSamples
) -> tuple[MatrixRow, ...]:
    """A row per key, in the order of the keys, from the predictions of its seeds.

    Raises:
        TrainError: no test sample has a label.
    """
    resampled: dict[RowKey, dict[str, Float64[np.ndarray, " resample"]]] = {}
    single: dict[RowKey, tuple[Scores, ...]] = {}
    for key, seeds in predictions.items():
        single[key] = tuple(
            score_probabilities(test.labels, one.probabilities, test.class_names) for one in seeds
        )
        resampled[key] = _mean_resamples([one.probabilities for one in seeds], test, test.resamples)
    rows = []
    for key, seeds in predictions.items():
        reference = _reference(key)
        gains = {}
        if reference in predictions and reference != key:
            gains = dict(_gains(key, reference, single, resampled))
        rows.append(
            MatrixRow(
                key=key,
                seeds=len(seeds),
                scores={
                    name: _estimate(_values(single[key], name), resampled[key][name])
                    for name in MEASURES
                },
                gains=gains,
                classes=_class_rows(single[key]),
                groups=tuple(_group_rows([one.probabilities for one in seeds], test)),
                details=tuple(one.details for one in seeds),
            )
        )
    return tuple(rows)


def _reference(key: RowKey) -> RowKey:
    name = SUPERVISED if key.protocol == "finetune" else RANDOM
    return RowKey(network=name, protocol=key.protocol, sensors=key.sensors, fraction=key.fraction)


def _gains(
    key: RowKey,
    reference: RowKey,
    single: Mapping[RowKey, tuple[Scores, ...]],
    resampled: Mapping[RowKey, Mapping[str, Float64[np.ndarray, " resample"]]],
) -> Iterator[tuple[str, Estimate]]:
    for name in MEASURES:
        own, floor = _values(single[key], name), _values(single[reference], name)
        difference = resampled[key][name] - resampled[reference][name]
        yield name, _estimate(own - floor.mean(), difference)


def _values(scores: tuple[Scores, ...], measure: str) -> Float64[np.ndarray, " seed"]:
    return np.array([getattr(one, measure) for one in scores])


def _estimate(
    values: Float64[np.ndarray, " seed"], resamples: Float64[np.ndarray, " resample"]
) -> Estimate:
    low, high = interval(float(values.mean()), resamples)
    spread = float(values.std(ddof=1)) if len(values) > 1 else None
    return Estimate(mean=float(values.mean()), spread=spread, low=low, high=high)


def _mean_resamples(
    probabilities: Sequence[Float[np.ndarray, "sample class"]],
    test: ScoredSamples,
    counts: Int64[np.ndarray, "resample sample"],
) -> dict[str, Float64[np.ndarray, " resample"]]:
    """Scores of each resample, on average over seeds."""
    found = [resample_scores(test.labels, one, counts) for one in probabilities]
    return {name: np.mean([one[name] for one in found], axis=0) for name in MEASURES}


def _class_rows(scores: tuple[Scores, ...]) -> tuple[ClassRow, ...]:
    return tuple(
        ClassRow(
            name=seeds[0].name,
            positives=seeds[0].positives,
            ap=_mean_or_none([one.ap for one in seeds]),
            f1=_mean_or_none([one.f1 for one in seeds]),
        )
        for seeds in zip(*(one.classes for one in scores), strict=True)
    )


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return float(np.mean(known)) if known else None


def _group_rows(
    probabilities: Sequence[Float[np.ndarray, "sample class"]], test: ScoredSamples
) -> Iterator[GroupRow]:
    if not test.groups:
        return
    # A group is a resample, too: one that draws each of its members once.
    members = np.stack([group.members for group in test.groups]).astype(np.int64)
    means = _mean_resamples(probabilities, test, members)
    for number, group in enumerate(test.groups):
        if test.labels[group.members].any():
            yield GroupRow(
                kind=group.kind,
                name=group.name,
                samples=int(group.members.sum()),
                micro_ap=float(means["micro_ap"][number]),
                macro_ap=float(means["macro_ap"][number]),
            )
