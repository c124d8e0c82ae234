"""Physical values as integers to be counted: by what a band's values are, the way that fits them.

Histograms of integers add up to the same under any partition of the pixels.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from bigearth_prep.bands import DECIBEL, REFLECTANCE, Band

DB_STEP = 0.01
DB_FLOOR = -100.0
_DB_CODES = 20_001
_DN_CODES = 65_536
_WIDE = 10.0
"""Range of values beyond which two decimals are enough, as of dB and reflectance x 10^4."""

_DROPPED_BITS = 14
"""Of a float32's 23 bits of fraction, so that 9 are left: codes lie 0.1 to 0.2 % apart."""

_FLOAT_CODES = 1 << (32 - _DROPPED_BITS)


@runtime_checkable
class CodeScale(Protocol):
    """How values are counted, and what the counted codes stand for."""

    @property
    def codes(self) -> int:
        """Number of codes, which count from 0."""

    def codes_of(self, physical: Shaped[np.ndarray, " pixel"]) -> Int64[np.ndarray, " pixel"]:
        """The code of each finite value; beyond the ends of the scale, that of the end."""

    def values_of(self, codes: Int64[np.ndarray, " code"]) -> Float64[np.ndarray, " code"]:
        """What codes stand for."""


@dataclass(frozen=True, slots=True)
class EvenScale:
    """Equal steps: `code * step + floor`."""

    step: float
    floor: float
    codes: int

    @property
    def digits(self) -> int:
        """Decimals of a value that are told; the narrower the range, the more."""
        return 2 if self.step * self.codes >= _WIDE else 9

    def codes_of(self, physical: Shaped[np.ndarray, " pixel"]) -> Int64[np.ndarray, " pixel"]:
        """The nearest step of each value."""
        steps = np.rint((physical.astype(np.float64) - self.floor) / self.step)
        return np.clip(steps, 0, self.codes - 1).astype(np.int64)

    def values_of(self, codes: Int64[np.ndarray, " code"]) -> Float64[np.ndarray, " code"]:
        """The value of each step."""
        return codes * self.step + self.floor


@dataclass(frozen=True, slots=True)
class FloatScale:
    """Steps in proportion to the value, for floating-point numbers of whatever range.

    A code is the upper bits of a float32, in the order of the values: 512 steps from each power of
    two to the next, of both signs. It stands for the middle of the values that share it.
    """

    @property
    def codes(self) -> int:
        """One for each pattern of the upper bits."""
        return _FLOAT_CODES

    def codes_of(self, physical: Shaped[np.ndarray, " pixel"]) -> Int64[np.ndarray, " pixel"]:
        """Negative values have their bits turned over, positive ones follow them."""
        values = physical.astype(np.float32) + np.float32(0.0)  # makes -0 the same as 0
        bits = values.view(np.uint32)
        ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
        return (ordered >> _DROPPED_BITS).astype(np.int64)

    def values_of(self, codes: Int64[np.ndarray, " code"]) -> Float64[np.ndarray, " code"]:
        """The middle of each step; 0 for the step that begins with it."""
        low = (codes.astype(np.uint32) << _DROPPED_BITS).astype(np.uint32)
        high = low | np.uint32((1 << _DROPPED_BITS) - 1)
        ends = [np.where(bits >> 31, bits & np.uint32(0x7FFFFFFF), ~bits) for bits in (low, high)]
        first, last = (end.astype(np.uint32).view(np.float32).astype(np.float64) for end in ends)
        return np.where(codes == _FLOAT_CODES // 2, 0.0, (first + last) / 2)


def integer_scale(dtype: np.dtype[Any], scale: float = 1.0, offset: float = 0.0) -> EvenScale:
    """Every value of an integer type for itself, `scale` and `offset` making it physical."""
    limits = np.iinfo(dtype)
    lowest = int(limits.min)
    return EvenScale(scale, offset + lowest * scale, int(limits.max) - lowest + 1)


def native_scale(band: Band) -> CodeScale:
    """The scale on which a band's native values are counted."""
    dtype = np.dtype(band.dtype)
    if dtype.kind in "iu":
        return integer_scale(dtype)
    return EvenScale(DB_STEP, DB_FLOOR, _DB_CODES) if band.unit == DECIBEL else FloatScale()


def physical_scale(unit: str) -> CodeScale:
    """The scale on which stored floating-point values are counted, made physical."""
    scales = {
        DECIBEL: EvenScale(DB_STEP, DB_FLOOR, _DB_CODES),
        REFLECTANCE: EvenScale(1.0, 0.0, _DN_CODES),
    }
    return scales.get(unit, FloatScale())
