"""Per-band statistics of what a dataset holds, in physical values, split by split.

Integers are counted as they are stored; floating-point values in steps of 1 (reflectance x 10^4),
0.01 dB, or 0.1 to 0.2 % of themselves (anything else). Counts add up to the same under any
partition of the samples.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped

from bigearth_prep.card import DatasetCard, read_card
from bigearth_prep.cluster import Runner
from bigearth_prep.code_scale import CodeScale, integer_scale, physical_scale
from bigearth_prep.dataset import open_dataset
from bigearth_prep.statistics import BandStatistics, summarize_codes
from bigearth_prep.terminal import progress_bar

_SAMPLES_PER_TASK = 512

Counts = dict[str, Int64[np.ndarray, " code"]]
"""Histograms by band name."""


@dataclass(frozen=True, slots=True)
class DatasetStatistics:
    """Statistics of every split and band."""

    samples: dict[str, int]
    """Samples counted, by split."""

    is_sampled: bool
    """Whether samples were left out on request."""

    splits: dict[str, dict[str, BandStatistics]]
    """By split, then by band name."""


@dataclass(frozen=True, slots=True)
class CountTask:
    """Samples of a split to be counted together."""

    dataset: Path
    split: str
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StoredBand:
    """One band as a dataset stores it, and how its values are counted."""

    name: str
    dtype: np.dtype
    scale: float
    offset: float
    code_scale: CodeScale

    def count(self, stored: Shaped[np.ndarray, "height width"]) -> Int64[np.ndarray, " code"]:
        """The histogram of one stored array; values beyond the ends are counted at the ends."""
        codes = stored.ravel()
        if self.dtype.kind != "u":
            codes = self.code_scale.codes_of(codes.astype(np.float64) * self.scale + self.offset)
        return np.bincount(codes, minlength=self.code_scale.codes)


def dataset_statistics(
    dataset: Path, run: Runner, *, samples_per_split: int | None = None, seed: int = 0
) -> DatasetStatistics:
    """Statistics of a finished dataset.

    Args:
        dataset: The dataset folder.
        run: Runs the counting.
        samples_per_split: Samples of each split to count; all by default.
        seed: Which samples those are.

    Raises:
        PrepError: the dataset is not finished, or a shard cannot be read.
    """
    card = read_card(dataset)
    bands = stored_bands(card)
    chosen = {
        split: _chosen(part.samples, samples_per_split, seed) for split, part in card.splits.items()
    }
    totals = {split: _no_counts(bands) for split in card.splits}
    with progress_bar(sum(map(len, chosen.values())), "samples counted") as advance:
        for task, counts in run(count_samples, _tasks(dataset.absolute(), chosen)):
            for name, histogram in counts.items():
                totals[task.split][name] += histogram
            advance(len(task.indices))
    return DatasetStatistics(
        samples={split: len(indices) for split, indices in chosen.items()},
        is_sampled=any(len(chosen[split]) < part.samples for split, part in card.splits.items()),
        splits={split: _summaries(bands, counts) for split, counts in totals.items()},
    )


def count_samples(task: CountTask) -> tuple[CountTask, Counts]:
    """The task, and the histograms of its samples.

    Raises:
        PrepError: a shard cannot be read.
    """
    samples = open_dataset(task.dataset, task.split)
    bands = stored_bands(samples.card)
    counts = _no_counts(bands)
    for index in task.indices:
        item = samples[index]
        arrays = (plane for sensor in samples.card.sensors for plane in item[sensor])
        for band, stored in zip(bands, arrays, strict=True):
            counts[band.name] += band.count(stored)
    return task, counts


def stored_bands(card: DatasetCard) -> list[StoredBand]:
    """The bands of a dataset, sensor by sensor in the order of the card."""
    bands = []
    for layout in card.sensors.values():
        dtype = np.dtype(layout.dtype)
        for name, scale, offset in zip(layout.bands, layout.scale, layout.offset, strict=True):
            is_integer = dtype.kind in "iu"
            codes = (
                integer_scale(dtype, scale, offset) if is_integer else physical_scale(layout.unit)
            )
            bands.append(StoredBand(name, dtype, scale, offset, codes))
    return bands


def _no_counts(bands: list[StoredBand]) -> Counts:
    return {band.name: np.zeros(band.code_scale.codes, np.int64) for band in bands}


def _summaries(bands: list[StoredBand], counts: Counts) -> dict[str, BandStatistics]:
    return {
        band.name: summarize_codes(band.name, counts[band.name], band.code_scale) for band in bands
    }


def _chosen(samples: int, wanted: int | None, seed: int) -> list[int]:
    if wanted is None or wanted >= samples:
        return list(range(samples))
    chosen: list[int] = np.random.default_rng(seed).choice(samples, wanted, replace=False).tolist()
    return sorted(chosen)


def _tasks(dataset: Path, chosen: Mapping[str, list[int]]) -> Iterator[CountTask]:
    for split, indices in chosen.items():
        for start in range(0, len(indices), _SAMPLES_PER_TASK):
            yield CountTask(dataset, split, tuple(indices[start : start + _SAMPLES_PER_TASK]))
