import math
from typing import get_args

import numpy as np
import pytest

from bigearth_prep.synthetic.textures import (
    PATCH_PX,
    TextureName,
    draw_complex_fields,
    draw_smooth_fields,
    draw_texture,
)


def _neighbour_correlation(fields: np.ndarray, lag_px: int) -> float:
    shifted = np.roll(fields, lag_px, axis=-1)
    return float(np.mean(fields * np.conj(shifted)).real / np.mean(np.abs(fields) ** 2))


@pytest.mark.parametrize("name", get_args(TextureName))
def test_every_texture_has_zero_mean_and_unit_variance(name: TextureName) -> None:
    rng = np.random.default_rng(0)
    values = np.stack([draw_texture(rng, name) for _ in range(60)])
    assert values.shape == (60, PATCH_PX, PATCH_PX)
    assert abs(values.mean()) < 0.08
    assert values.std() == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("scale_px", [1.0, 3.0])
def test_smooth_fields_correlate_as_blurred_white_noise_does(scale_px: float) -> None:
    fields = draw_smooth_fields(np.random.default_rng(0), 40, scale_px)
    assert fields.std() == pytest.approx(1, abs=0.05)
    for lag_px in (1, 2, 4):
        expected = math.exp(-(lag_px**2) / (4 * scale_px**2))
        assert _neighbour_correlation(fields, lag_px) == pytest.approx(expected, abs=0.03)


def test_complex_fields_are_circular_and_have_unit_power() -> None:
    fields = draw_complex_fields(np.random.default_rng(0), (5, 4), 1.0)
    assert fields.shape == (5, 4, PATCH_PX, PATCH_PX)
    assert np.mean(np.abs(fields) ** 2) == pytest.approx(1, abs=0.02)
    assert abs(np.mean(fields**2)) < 0.02
    expected = math.exp(-1 / 4)
    assert _neighbour_correlation(fields, 1) == pytest.approx(expected, abs=0.02)


def test_textures_of_one_variance_differ_in_how_far_they_correlate() -> None:
    rng = np.random.default_rng(0)
    reach = {
        name: np.mean([_neighbour_correlation(draw_texture(rng, name), 3) for _ in range(20)])
        for name in ("canopy", "clumps", "fields", "rows")
    }
    assert reach["rows"] < reach["canopy"] < reach["clumps"] < reach["fields"]
