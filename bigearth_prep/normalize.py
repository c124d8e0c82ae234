"""Physical values to stored ones, by a linear map per band that the card can undo."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped

from bigearth_prep.bands import Band
from bigearth_prep.card import BandParameters, NormalizationCard, Scheme
from bigearth_prep.errors import PrepError
from bigearth_prep.statistics import BandStatistics, StatisticsTable

STRETCH_STDS = 2.0
"""`paper` maps mean - 2 std ... mean + 2 std onto 0 ... 255."""

STRETCH_PERCENTILES = ("1", "99")
"""`percentile` maps these percentiles onto the lowest and highest code."""

QUANTILE_CLIP = (1.0, 99.0)
"""`paper` first clips each radar band of a patch to these percentiles of itself."""

_REMEMBERED_BANDS = 64
_SAMPLE_STRIDE = 16

DTYPES: Mapping[Scheme, tuple[str, ...]] = {
    "paper": ("uint8",),
    "zscore": ("float32", "float16"),
    "percentile": ("uint8", "uint16"),
    "none": ("native",),
}
"""What each scheme can be stored as; the first is the default."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BandEncoding:
    """The linear map of one band: `stored = (physical - offset) / span * codes`."""

    offset: float
    """Physical value stored as 0."""

    span: float
    """Physical range that `codes` steps cover."""

    codes: int
    dtype: str
    truncates: bool = False
    """Fractions are cut off, as published, instead of rounded."""

    @property
    def scale(self) -> float:
        """Physical units per stored unit."""
        return self.span / self.codes


def encoding_of(band: Band, scheme: Scheme, dtype: str, parameters: BandParameters) -> BandEncoding:
    """How this band is stored under a scheme.

    Raises:
        PrepError: the scheme cannot be stored as this dtype.
    """
    if dtype not in DTYPES[scheme]:
        raise PrepError(f"--normalize {scheme} is stored as {' or '.join(DTYPES[scheme])}: {dtype}")
    if scheme == "none":
        dtype = band.dtype
    return BandEncoding(
        offset=parameters.lower,
        span=parameters.upper - parameters.lower,
        codes=np.iinfo(dtype).max if scheme in {"paper", "percentile"} else 1,
        dtype=dtype,
        truncates=scheme == "paper",
    )


def parameters_of(scheme: Scheme, statistics: BandStatistics, *, band: str) -> BandParameters:
    """What the card records of one band's normalization.

    Raises:
        PrepError: `percentile` is asked of statistics that hold no percentiles, or the band has
            no range of values.
    """
    mean, std = statistics.mean, statistics.std
    if scheme == "paper":
        lower, upper = mean - STRETCH_STDS * std, mean + STRETCH_STDS * std
    elif scheme == "percentile":
        if not set(STRETCH_PERCENTILES) <= set(statistics.percentiles or {}):
            raise PrepError(
                f"--normalize percentile needs the percentiles {' and '.join(STRETCH_PERCENTILES)} "
                f"of {band}, and published tables hold none; "
                "add --stats compute, or --stats FILE as made by bigearth-prep stats"
            )
        percentiles = statistics.percentiles or {}
        lower, upper = (percentiles[share] for share in STRETCH_PERCENTILES)
    else:
        lower, upper = (mean, mean + std) if scheme == "zscore" else (0.0, 1.0)
    if not upper > lower:
        raise PrepError(f"{band} has no range of values ({lower:g} to {upper:g}); leave it out")
    return BandParameters(mean=mean, std=std, lower=lower, upper=upper)


def statistics_of(normalization: NormalizationCard) -> StatisticsTable:
    """What a dataset was normalized with; its scheme makes the same parameters of it again."""
    is_stretched = normalization.scheme == "percentile"
    bands = {
        name: BandStatistics(
            mean=band.mean,
            std=band.std,
            percentiles=dict(zip(STRETCH_PERCENTILES, (band.lower, band.upper), strict=True))
            if is_stretched
            else None,
        )
        for name, band in normalization.parameters.items()
    }
    return StatisticsTable(source=normalization.source, bands=bands)


def encode(
    physical: Shaped[np.ndarray, "height width"], encoding: BandEncoding
) -> Shaped[np.ndarray, "height width"]:
    """Stored values of one band: scaled, then clipped and rounded where codes are integers."""
    if physical.dtype == encoding.dtype and (encoding.scale, encoding.offset) == (1.0, 0.0):
        return physical
    if physical.dtype == np.uint16:
        return _codes_of_uint16(encoding).take(physical)
    return _scale(physical, encoding)


@lru_cache(_REMEMBERED_BANDS)
def _codes_of_uint16(encoding: BandEncoding) -> Shaped[np.ndarray, " code"]:
    """What each of the 65,536 values is stored as: looking up is faster than computing."""
    return _scale(np.arange(65_536, dtype=np.uint16), encoding)


def _scale(
    physical: Shaped[np.ndarray, "..."], encoding: BandEncoding
) -> Shaped[np.ndarray, "..."]:
    dtype = np.dtype(encoding.dtype)
    scaled: np.ndarray = np.subtract(physical, encoding.offset, dtype=np.float64)
    scaled /= encoding.span
    scaled *= encoding.codes
    if dtype.kind in "iu":
        lowest, largest = _limits(dtype)
        np.maximum(scaled, lowest, out=scaled)
        np.minimum(scaled, largest, out=scaled)
        if not encoding.truncates:
            np.rint(scaled, out=scaled)
    return scaled.astype(dtype)


@lru_cache(_REMEMBERED_BANDS)
def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def clip_to_quantiles(
    backscatter_db: Float32[np.ndarray, "height width"],
) -> Float32[np.ndarray, "height width"]:
    """The finite band clipped to its own 1st and 99th percentile, as DINO-MM's loader did."""
    values = backscatter_db.ravel()
    lower_rank, upper_rank = (share / 100 * (values.size - 1) for share in QUANTILE_CLIP)
    extremes = _sort_extremes(values, int(lower_rank) + 2)
    lower = _interpolate(extremes, lower_rank)
    upper = _interpolate(extremes, upper_rank - (values.size - extremes.size))
    clipped: Float32[np.ndarray, "height width"] = np.clip(
        backscatter_db, np.float32(lower), np.float32(upper)
    )
    return clipped


def _sort_extremes(
    values: Float32[np.ndarray, " value"], count: int
) -> Float32[np.ndarray, " extreme"]:
    """Ascending values among which are the `count` lowest and the `count` highest of all.

    A sample tells bounds beyond which some three times as many lie; should it be misleading,
    everything is sorted.
    """
    sample = np.sort(values[::_SAMPLE_STRIDE])
    outside = 3 * count // _SAMPLE_STRIDE
    low, high = sample[outside], sample[-1 - outside]
    extremes = np.sort(values[(values <= low) | (values >= high)])
    is_enough = extremes.size >= count and extremes[count - 1] <= low and extremes[-count] >= high
    return extremes if is_enough else np.sort(values)


def _interpolate(ordered: Float32[np.ndarray, " value"], rank: float) -> float:
    """The value at a fractional rank, rounded as `np.percentile` rounds it."""
    below = int(rank)
    left, right = ordered[below], ordered[below + 1]
    step, share = float(right - left), rank - below
    return float(right) - step * (1 - share) if share >= 0.5 else float(left) + step * share
