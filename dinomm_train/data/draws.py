"""Random numbers by name: each is a pure function of what it is for, never of who asks or when.

The generator is SplitMix64's finalizer (Steele et al. 2014, doi:10.1145/2660193.2660195) chained
over the parts of the name. It is integer arithmetic, so a number is the same on every machine and
in every release, and neither ranks, batches nor resuming can change it.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Float64, UInt64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MANTISSA_SHIFT = np.uint64(11)
_MANTISSA_STEP = 2.0**-53


class Purpose(IntEnum):
    """What numbers are drawn for; numbers for different purposes are independent."""

    ORDER = 0
    CROP = 1
    RADIOMETRY = 2
    SENSOR_DROP = 3
    DEPTH = 4
    SHARD_ORDER = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewKey:
    """Which samples' views are drawn, in which pass over the dataset of which run."""

    seed: int
    """The run's seed."""

    epoch: int
    """The pass, from zero."""

    sample_ids: UInt64[np.ndarray, " sample"]
    """One number per sample that stands for its key."""


def hash_words(*words: UInt64[np.ndarray, "..."] | int) -> UInt64[np.ndarray, "..."]:
    """Uniform 64-bit words, one for each element of the words' broadcast shape, at least one."""
    state: UInt64[np.ndarray, ...] = np.zeros(1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            state = _mixed(state + _GOLDEN + np.asarray(word).astype(np.uint64))
    return state


def view_uniforms(
    key: ViewKey, purpose: Purpose, *, views: range, draws: int
) -> Float64[np.ndarray, "view sample draw"]:
    """Independent numbers in [0, 1): `draws` for each of these views of each sample."""
    words = hash_words(
        key.seed,
        key.epoch,
        int(purpose),
        key.sample_ids[:, None],
        np.array(views, dtype=np.uint64)[:, None, None],
        np.arange(draws, dtype=np.uint64),
    )
    return (words >> _MANTISSA_SHIFT) * _MANTISSA_STEP


def between(
    uniforms: Float64[np.ndarray, "..."], low: float, high: float
) -> Float64[np.ndarray, "..."]:
    """Numbers in [0, 1) spread over [low, high)."""
    return low + (high - low) * uniforms


def _mixed(words: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: UInt64[np.ndarray, ...] = words ^ (words >> np.uint64(31))
    return mixed
