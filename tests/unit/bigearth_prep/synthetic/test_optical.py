import numpy as np
import pytest

from bigearth_prep.bands import S2_BANDS
from bigearth_prep.labels import CLASSES
from bigearth_prep.synthetic import optical
from bigearth_prep.synthetic.cover import LandCover, draw_land_cover
from bigearth_prep.synthetic.optical import View, render_optical

SUMMER = View(day_of_year=190, latitude_deg=50.0, snow=False, cloud=False)
WINTER = View(day_of_year=15, latitude_deg=50.0, snow=False, cloud=False)


def _cover_of(name: str) -> LandCover:
    cover = np.full((120, 120), CLASSES.index(name), dtype=np.uint8)
    return LandCover(classes=cover, texture=np.zeros((120, 120), dtype=np.float32))


def _mean_ndvi(name: str, view: View) -> float:
    bands = render_optical(_cover_of(name), view, np.random.default_rng(0))
    red, near_infrared = bands["B04"].astype(float), bands["B08"].astype(float)
    return float(np.mean((near_infrared - red) / (near_infrared + red)))


def test_every_band_comes_at_its_native_size_and_never_below_one() -> None:
    bands = render_optical(_cover_of("Marine waters"), SUMMER, np.random.default_rng(0))
    assert {name: pixels.shape for name, pixels in bands.items()} == {
        band.name: (band.native_px, band.native_px) for band in S2_BANDS
    }
    assert min(pixels.min() for pixels in bands.values()) == 1


def test_leaves_fall_needles_stay_and_water_is_never_green() -> None:
    assert _mean_ndvi("Broad-leaved forest", SUMMER) > 0.75
    assert _mean_ndvi("Broad-leaved forest", WINTER) < 0.5
    assert _mean_ndvi("Coniferous forest", WINTER) > 0.6
    assert _mean_ndvi("Inland waters", SUMMER) < 0


@pytest.mark.parametrize("px", [60, 20])
def test_coarse_bands_are_area_means_of_the_fine_grid(px: int) -> None:
    rng = np.random.default_rng(0)
    shares = rng.random((3, 120, 120), dtype=np.float32)
    step = 120 // px
    expected = np.zeros((3, px, px))
    for row in range(px):
        for column in range(px):
            window = shares[:, row * step : (row + 1) * step, column * step : (column + 1) * step]
            expected[:, row, column] = window.mean(axis=(1, 2))
    np.testing.assert_allclose(optical._area_means(shares, px), expected, rtol=1e-5)


def test_bands_of_all_sizes_show_the_same_scene() -> None:
    # B08 and B8A differ by a few per cent in every material, so area means must follow closely.
    cover = draw_land_cover(np.random.default_rng(3), (1,) * 19)
    bands = render_optical(cover, SUMMER, np.random.default_rng(0))
    fine = bands["B08"].reshape(60, 2, 60, 2).mean(axis=(1, 3))
    assert np.corrcoef(fine.ravel(), bands["B8A"].ravel())[0, 1] > 0.98


def test_material_shares_are_split_between_ground_and_accent() -> None:
    cover = draw_land_cover(np.random.default_rng(1), (1,) * 19)
    shares = optical._draw_shares(cover, np.random.default_rng(0))
    assert shares.min() >= 0
    assert np.all(np.count_nonzero(shares, axis=0) <= 2)
    for index in np.unique(cover.classes):
        total = shares.sum(axis=0)[cover.classes == index]
        np.testing.assert_allclose(total, total[0], rtol=1e-5)


def test_snow_and_clouds_brighten_the_blue() -> None:
    cover = _cover_of("Pastures")
    clear = render_optical(cover, WINTER, np.random.default_rng(0))["B02"].mean()
    for snow, cloud in ((True, False), (False, True)):
        view = View(day_of_year=15, latitude_deg=50.0, snow=snow, cloud=cloud)
        assert render_optical(cover, view, np.random.default_rng(0))["B02"].mean() > 1.5 * clear


def test_snow_stays_off_the_water() -> None:
    snowy = View(day_of_year=15, latitude_deg=50.0, snow=True, cloud=False)
    bands = render_optical(_cover_of("Inland waters"), snowy, np.random.default_rng(0))
    assert bands["B02"].max() < 1000


def test_light_varies_between_images_by_about_an_eighth() -> None:
    cover = _cover_of("Coniferous forest")
    means = [
        render_optical(cover, SUMMER, np.random.default_rng(seed))["B08"].mean()
        for seed in range(40)
    ]
    assert 0.08 < np.std(np.log(means)) < 0.2
