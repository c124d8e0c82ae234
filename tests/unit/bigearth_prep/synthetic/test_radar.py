import math

import numpy as np
import pytest

from bigearth_prep.labels import CLASSES
from bigearth_prep.synthetic.cover import COVER_TYPES, LandCover
from bigearth_prep.synthetic.radar import LOOKS, draw_speckle, render_radar


def _cover_of(name: str) -> LandCover:
    cover = np.full((120, 120), CLASSES.index(name), dtype=np.uint8)
    return LandCover(classes=cover, texture=np.zeros((120, 120), dtype=np.float32))


def test_speckle_has_the_moments_of_a_gamma_distribution_of_four_looks() -> None:
    speckle = draw_speckle(np.random.default_rng(0), 30)
    assert speckle.mean() == pytest.approx(1, abs=0.01)
    assert speckle.var() == pytest.approx(1 / LOOKS, abs=0.01)
    third_moment = np.mean((speckle - 1) ** 3)
    assert third_moment == pytest.approx(2 / LOOKS**2, abs=0.02)


def test_neighbouring_speckle_is_correlated() -> None:
    departure = draw_speckle(np.random.default_rng(0), 30) - 1
    correlation = np.mean(departure[..., 1:] * departure[..., :-1]) / departure.var()
    # Intensity correlates as the square of the field: exp(-1 / (4 * 1 px^2)) ** 2.
    assert correlation == pytest.approx(math.exp(-1 / 2), abs=0.03)


@pytest.mark.parametrize("name", ["Industrial or commercial units", "Arable land", "Inland waters"])
def test_backscatter_lies_around_the_mean_of_its_class(name: str) -> None:
    kind = COVER_TYPES[CLASSES.index(name)]
    images = [render_radar(_cover_of(name), np.random.default_rng(seed)) for seed in range(40)]
    for band, expected_db in (("VH", kind.vh_db), ("VV", kind.vv_db)):
        power = np.mean([np.mean(10 ** (image[band] / 10)) for image in images])
        assert 10 * math.log10(power) == pytest.approx(expected_db, abs=1.0)


def test_bands_are_finite_float_decibels_with_decimals() -> None:
    bands = render_radar(_cover_of("Marine waters"), np.random.default_rng(0))
    for pixels in bands.values():
        assert pixels.dtype == np.float32
        assert np.isfinite(pixels).all()
        assert not np.array_equal(pixels, np.rint(pixels))


def test_the_offset_of_an_image_is_shared_by_both_polarizations() -> None:
    images = [
        render_radar(_cover_of("Mixed forest"), np.random.default_rng(seed)) for seed in range(60)
    ]
    vh_db, vv_db = (np.array([image[band].mean() for image in images]) for band in ("VH", "VV"))
    assert np.corrcoef(vh_db, vv_db)[0, 1] > 0.6
