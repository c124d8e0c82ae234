"""Per-band statistics: published tables, and exact mergeable counts of a dataset's own pixels.

Counts are histograms of integers, so that any partition of the patches adds up to the same
result: integers are counted as they are, backscatter in steps of 0.01 dB, other floating-point
values in steps of 0.1 to 0.2 % of themselves.
"""

import json
import math
import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64, Shaped

from bigearth_prep.bands import ALL_BANDS, Band
from bigearth_prep.code_scale import CodeScale, EvenScale, native_scale
from bigearth_prep.errors import PrepError
from bigearth_prep.whole_file import write_text

PublishedOrigin = Literal["dino-mm", "reben"]
"""Whose published mean and standard deviation."""

PERCENTILES = (0.1, 1.0, 2.0, 5.0, 25.0, 50.0, 75.0, 95.0, 98.0, 99.0, 99.9)


@dataclass(frozen=True, kw_only=True, slots=True)
class BandStatistics:
    """Moments and percentiles of one band, in its unit."""

    mean: float
    std: float
    count: int = 0
    """Pixels counted; 0 for a published table."""

    minimum: float | None = None
    maximum: float | None = None
    percentiles: dict[str, float] | None = None
    """Value by percentage, such as `"99.9"`; published tables have none."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std >= 0):
            raise ValueError(f"mean {self.mean} and std {self.std} are not those of any values")


BandTables = Mapping[str, Mapping[str, BandStatistics]]
"""Statistics by split, then by band name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StatisticsTable:
    """Statistics of several bands, and where they come from."""

    source: str
    bands: dict[str, BandStatistics]


def empty_counts(band: Band) -> Int64[np.ndarray, " bin"]:
    """A histogram of the band's values with no pixel in it."""
    return np.zeros(native_scale(band).codes, dtype=np.int64)


def count_pixels(
    band: Band, pixels: Shaped[np.ndarray, "height width"]
) -> Int64[np.ndarray, " bin"]:
    """The histogram of one raster; add histograms to merge them.

    Backscatter beyond -100 or +100 dB is counted in the outermost bin.
    """
    scale = native_scale(band)
    values = pixels.ravel()
    codes = values if values.dtype.kind == "u" else scale.codes_of(values)
    return np.bincount(codes, minlength=scale.codes)


def summarize(band: Band, counts: Int64[np.ndarray, " bin"]) -> BandStatistics:
    """Mean, population standard deviation, range and percentiles of a histogram.

    Raises:
        PrepError: the histogram is empty.
    """
    return summarize_codes(band.name, counts, native_scale(band))


def summarize_codes(
    name: str, counts: Int64[np.ndarray, " bin"], scale: CodeScale
) -> BandStatistics:
    """The same of a histogram on any scale of codes; exact but for the last rounding.

    Raises:
        PrepError: the histogram is empty.
    """
    total = int(counts.sum())
    if total == 0:
        raise PrepError(f"{name}: no pixel to compute statistics from; every pair is bad")
    filled = np.flatnonzero(counts)
    weights = [int(count) for count in counts[filled]]
    below = np.cumsum(counts[filled])
    ranks = [int(np.searchsorted(below, share / 100 * total)) for share in PERCENTILES]
    if isinstance(scale, EvenScale):
        mean, std = _moments_of_steps([int(code) for code in filled], weights, scale)
        values = [round(int(code) * scale.step + scale.floor, scale.digits) for code in filled]
    else:
        values = scale.values_of(filled).tolist()
        mean, std = _moments(values, weights)
    return BandStatistics(
        mean=mean,
        std=std,
        count=total,
        minimum=values[0],
        maximum=values[-1],
        percentiles={
            f"{share:g}": values[rank] for share, rank in zip(PERCENTILES, ranks, strict=True)
        },
    )


def _moments_of_steps(
    codes: list[int], weights: list[int], scale: EvenScale
) -> tuple[float, float]:
    """Mean and standard deviation, summed in whole numbers."""
    total = sum(weights)
    first = sum(code * weight for code, weight in zip(codes, weights, strict=True))
    second = sum(code**2 * weight for code, weight in zip(codes, weights, strict=True))
    variance = (second * total - first * first) / (total * total)
    return first / total * scale.step + scale.floor, variance**0.5 * scale.step


def _moments(values: list[float], weights: list[int]) -> tuple[float, float]:
    """The same of any values, each sum rounded but once."""
    total = sum(weights)
    mean = math.fsum(map(operator.mul, values, weights)) / total
    squares = ((value - mean) ** 2 for value in values)
    return mean, (math.fsum(map(operator.mul, squares, weights)) / total) ** 0.5


def read_statistics(path: Path) -> StatisticsTable:
    """The table in a JSON file as `bigearth-prep stats` writes it.

    Raises:
        PrepError: the file is not such a table.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        bands = {name: BandStatistics(**values) for name, values in fields["bands"].items()}
        return StatisticsTable(source=fields["source"], bands=bands)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PrepError(
            f"{path} is not a statistics file ({error!r}); make one with bigearth-prep stats"
        ) from error


def write_statistics(table: StatisticsTable, path: Path) -> None:
    """Write the table as JSON, whole or not at all."""
    write_text(path, json.dumps(asdict(table), indent=2) + "\n")


def require_bands(table: StatisticsTable, bands: tuple[Band, ...]) -> None:
    """Nothing, if the table knows every band.

    Raises:
        PrepError: a band is missing from the table.
    """
    missing = [band.name for band in bands if band.name not in table.bands]
    if missing:
        raise PrepError(f"statistics of {table.source} lack {', '.join(missing)}; recompute them")


def published_statistics(origin: PublishedOrigin) -> StatisticsTable:
    """The mean and standard deviation that a publication used.

    `dino-mm`: Sentinel-2 of the BigEarthNet-S2 v1 models (TU Berlin), Sentinel-1 of DINO-MM's
    code. `reben`: official v2 train split, native sizes (ConfigILM, BENv2).
    """
    means, stds = _PUBLISHED[origin]
    bands = {
        band.name: BandStatistics(mean=mean, std=std)
        for band, mean, std in zip(ALL_BANDS, means, stds, strict=True)
    }
    return StatisticsTable(source=_SOURCES[origin], bands=bands)


_SOURCES: Mapping[str, str] = {
    "dino-mm": "published: BigEarthNet-S2 v1 (TU Berlin) and DINO-MM (arXiv 2204.05381)",
    "reben": "published: reBEN, BigEarthNet v2 train split (ConfigILM BENv2)",
}

_PUBLISHED: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "dino-mm": (
        (
            340.76769064,
            429.9430203,
            614.21682446,
            590.23569706,
            950.68368468,
            1792.46290469,
            2075.46795189,
            2218.94553375,
            2266.46036911,
            2246.0605464,
            1594.42694882,
            1009.32729131,
            -19.22,
            -12.59,
        ),
        (
            554.81258967,
            572.41639287,
            582.87945694,
            675.88746967,
            729.89827633,
            1096.01480586,
            1273.45393088,
            1365.45589904,
            1356.13789355,
            1302.3292881,
            1079.19066363,
            818.86747235,
            5.42,
            5.04,
        ),
    ),
    "reben": (
        (
            361.0768,
            438.3721,
            614.0557,
            588.4096,
            942.8433,
            1769.9316,
            2049.5515,
            2193.2920,
            2235.5566,
            2241.4553,
            1568.2268,
            997.7325,
            -19.3526,
            -12.6439,
        ),
        (
            575.0687,
            607.0269,
            603.2968,
            684.5688,
            738.4327,
            1100.4561,
            1275.8054,
            1369.3717,
            1356.5441,
            1316.3933,
            1070.1613,
            813.5276,
            5.5905,
            5.1335,
        ),
    ),
}
