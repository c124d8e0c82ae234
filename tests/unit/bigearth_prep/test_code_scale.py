"""Codes against the values they stand for: order, distance, ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bigearth_prep.bands import DECIBEL, Band
from bigearth_prep.code_scale import EvenScale, FloatScale, integer_scale, native_scale

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
NORMAL = FINITE.filter(lambda value: value == 0 or abs(value) > 2.0**-120)


def band_of(dtype: str, unit: str) -> Band:
    return Band("x", "s2", 10.0, 8, dtype, unit)


@given(values=arrays(np.float32, 20, elements=FINITE))
def test_codes_of_floats_are_in_the_order_of_the_values(values: np.ndarray) -> None:
    codes = FloatScale().codes_of(np.sort(values))
    assert (np.diff(codes) >= 0).all()
    assert codes.min() >= 0
    assert codes.max() < FloatScale().codes


@given(values=arrays(np.float32, 20, elements=NORMAL))
def test_a_code_of_floats_stands_for_its_values_to_a_thousandth(values: np.ndarray) -> None:
    found = FloatScale().values_of(FloatScale().codes_of(values))
    assert found == pytest.approx(values.astype(np.float64), rel=1e-3, abs=0)


def test_zeros_of_both_signs_are_counted_as_zero() -> None:
    codes = FloatScale().codes_of(np.array([0.0, -0.0], np.float32))
    assert FloatScale().values_of(codes).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_every_integer_has_a_code_of_its_own_that_gives_it_back(dtype: str) -> None:
    scale = native_scale(band_of(dtype, "whatever"))
    limits = np.iinfo(dtype)
    values = np.arange(limits.min, limits.max + 1).astype(dtype)
    codes = scale.codes_of(values)
    assert codes.tolist() == list(range(scale.codes))
    assert np.array_equal(scale.values_of(codes), values)


def test_stored_integers_are_counted_in_physical_steps() -> None:
    scale = integer_scale(np.dtype("int16"), scale=0.5, offset=10.0)
    physical = np.array([-32768, 0, 32767], np.int16) * 0.5 + 10.0
    assert scale.values_of(scale.codes_of(physical)).tolist() == physical.tolist()


def test_decibels_have_even_steps_whatever_the_sensor() -> None:
    assert native_scale(band_of("float32", DECIBEL)) == EvenScale(0.01, -100.0, 20_001)
    assert native_scale(band_of("float32", "reflectance")) == FloatScale()
