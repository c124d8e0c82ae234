"""How much scores would vary with other test samples: the bootstrap (Efron 1979)."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float64, Int32, Int64, UInt8

from dinomm_train.evaluation.scores import DECISION_THRESHOLD

INTERVAL_PERCENT = 95.0

MEASURES = ("micro_ap", "macro_ap", "micro_f1", "macro_f1")
"""Scores of a whole split."""

_NUMBERS_AT_ONCE = 1 << 24
"""Bounds the memory of one block of resamples: 64 MiB of int32."""


def draw_resamples(
    labels: UInt8[np.ndarray, "sample class"], resamples: int, seed: int
) -> Int64[np.ndarray, "resample sample"]:
    """How often each sample is in each resample: as many draws as samples, with replacement.

    A resample without any label is drawn anew, as no score is defined on it.

    Raises:
        ValueError: no sample has a label.
    """
    labelled = labels.any(axis=1)
    if not labelled.any():
        raise ValueError("no sample has a label")
    rng = np.random.default_rng(seed)
    even = np.full(len(labels), 1 / len(labels))
    counts: Int64[np.ndarray, "resample sample"] = rng.multinomial(len(labels), even, resamples)
    while len(empty := np.flatnonzero(~counts.any(axis=1, where=labelled))):
        counts[empty] = rng.multinomial(len(labels), even, len(empty))
    return counts


def resample_scores(
    labels: UInt8[np.ndarray, "sample class"],
    probabilities: Float[np.ndarray, "sample class"],
    counts: Int64[np.ndarray, "resample sample"],
) -> dict[str, Float64[np.ndarray, " resample"]]:
    """Every measure of every resample.

    Macro scores are over the classes that have a positive in the resample; a resample without any
    positive scores NaN.
    """
    classes = range(labels.shape[1])
    per_class = np.stack(
        [_resampled_ap(labels[:, [one]], probabilities[:, [one]], counts) for one in classes]
    )
    micro_f1, macro_f1 = _resampled_f1(labels, probabilities, counts)
    return {
        "micro_ap": _resampled_ap(labels, probabilities, counts),
        "macro_ap": _mean_of_known(per_class),
        "micro_f1": micro_f1,
        "macro_f1": macro_f1,
    }


def interval(estimate: float, scores: Float64[np.ndarray, " resample"]) -> tuple[float, float]:
    """Where 95 % of the resamples lie, moved so that their mean is the estimate.

    A resample holds some samples twice, which makes average precision of rare classes too high in
    each of them: only how much resamples differ says something of the estimate.
    """
    outside = (100 - INTERVAL_PERCENT) / 2
    low, high = np.percentile(scores, [outside, 100 - outside]) - np.mean(scores)
    return estimate + float(low), estimate + float(high)


def _resampled_ap(
    labels: UInt8[np.ndarray, "sample class"],
    probabilities: Float[np.ndarray, "sample class"],
    counts: Int64[np.ndarray, "resample sample"],
) -> Float64[np.ndarray, " resample"]:
    """Average precision over all pairs of sample and class, pooled: sorted once for all."""
    pooled, truth = probabilities.ravel(), labels.ravel()
    order = np.argsort(-pooled, kind="stable")
    sample_of, positive = order // labels.shape[1], truth[order].astype(np.int32)
    # Equal probabilities are one threshold, and only thresholds that gain positives add area.
    ends = np.flatnonzero(np.diff(pooled[order], append=np.inf))
    ends = ends[np.diff(np.cumsum(positive)[ends], prepend=0) > 0]
    found = []
    for block in _blocks(counts, len(pooled)):
        weights = block[sample_of]
        shown = np.cumsum(weights, axis=0, dtype=np.int32)[ends]
        hits = np.cumsum(weights * positive[:, None], axis=0, dtype=np.int32)[ends]
        area = (np.diff(hits, axis=0, prepend=0) * (hits / np.maximum(shown, 1))).sum(axis=0)
        total = hits[-1] if len(ends) else np.zeros_like(area)
        found.append(np.divide(area, total, out=np.full_like(area, np.nan), where=total > 0))
    return np.concatenate(found)


def _resampled_f1(
    labels: UInt8[np.ndarray, "sample class"],
    probabilities: Float[np.ndarray, "sample class"],
    counts: Int64[np.ndarray, "resample sample"],
) -> tuple[Float64[np.ndarray, " resample"], Float64[np.ndarray, " resample"]]:
    """Micro and macro F1."""
    predicted = (probabilities >= DECISION_THRESHOLD).astype(np.float64)
    weights, truth = counts.astype(np.float64), labels.astype(np.float64)
    hits, claimed, there = (weights @ each for each in (predicted * truth, predicted, truth))
    both = claimed + there
    per_class = np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)
    pooled = both.sum(axis=1)
    micro = np.divide(2 * hits.sum(axis=1), pooled, out=np.zeros_like(pooled), where=pooled > 0)
    return micro, _mean_of_known(np.where(there > 0, per_class, np.nan).T)


def _mean_of_known(
    per_class: Float64[np.ndarray, "class resample"],
) -> Float64[np.ndarray, " resample"]:
    known = ~np.isnan(per_class)
    counts = known.sum(axis=0)
    total = np.where(known, per_class, 0.0).sum(axis=0)
    mean: Float64[np.ndarray, " resample"] = np.divide(
        total, counts, out=np.full(len(counts), np.nan), where=counts > 0
    )
    return mean


def _blocks(
    counts: Int64[np.ndarray, "resample sample"], pairs: int
) -> Iterator[Int32[np.ndarray, "sample block"]]:
    """The counts sample by sample, of so many resamples that one fits into memory."""
    size = max(1, _NUMBERS_AT_ONCE // max(1, pairs))
    for at in range(0, len(counts), size):
        yield np.ascontiguousarray(counts[at : at + size].T, dtype=np.int32)
