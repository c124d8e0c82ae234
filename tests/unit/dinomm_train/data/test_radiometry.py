"""The `fixed` chain."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor

from dinomm_train.config import RadiometryConfig
from dinomm_train.data.inputs import InputScaling, SensorChannels
from dinomm_train.data.radiometry import change_radiometry, radiometry_draws

STILL = RadiometryConfig(s2_jitter=0.0, s1_gain=0.0, s1_speckle=0.0)
COUNT = 400


def scaling_of(valid_range: tuple[float, float] | None = None) -> InputScaling:
    """Three optical bands and two polarizations, none of which has its zero at zero."""
    return InputScaling(
        channels=SensorChannels(s2=slice(0, 3), s1=slice(3, 5)),
        gain=np.ones(5, dtype=np.float32),
        bias=np.zeros(5, dtype=np.float32),
        physical_per_input=np.array([1000, 2000, 3000, 20, 25], dtype=np.float32),
        physical_at_zero=np.array([-100, 50, 400, -30, -25], dtype=np.float32),
        valid_range=valid_range,
    )


def random_crops(side: int = 6) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.rand((COUNT, 5, side, side), generator=rng) * 0.5 + 0.25


def change(
    crops: Tensor,
    config: RadiometryConfig,
    *,
    blur: float = 0.0,
    valid_range: tuple[float, float] | None = None,
) -> Tensor:
    uniforms = np.random.default_rng(1).random((COUNT, radiometry_draws(5)))
    probability = np.full(COUNT, blur)
    return change_radiometry(crops, uniforms, probability, config, scaling_of(valid_range))


def physical(crops: Tensor) -> np.ndarray:
    scaling = scaling_of()
    per_input = scaling.physical_per_input[:, None, None]
    values: np.ndarray = (
        crops.double().numpy() * per_input + scaling.physical_at_zero[:, None, None]
    )
    return values


def changed_share(before: Tensor, after: Tensor, channels: slice) -> float:
    differs = (before[:, channels] - after[:, channels]).abs().amax(dim=(1, 2, 3)) > 1e-5
    return float(differs.float().mean())


def test_with_nothing_to_change_crops_stay() -> None:
    crops = random_crops()
    assert torch.allclose(change(crops, STILL), crops, atol=1e-6)


def test_an_optical_gain_multiplies_reflectance_alike_in_all_bands() -> None:
    crops = random_crops()
    config = replace(STILL, s2_jitter=1.0, s2_gain=0.2, s2_contrast=0.0, s2_band_gain=0.0)
    changed = change(crops, config)
    ratio = physical(changed)[:, :3] / physical(crops)[:, :3]
    assert np.allclose(ratio, ratio[:, :1, :1, :1], rtol=1e-4)
    gains = ratio[:, 0, 0, 0]
    assert 0.8 <= gains.min() < 0.81
    assert 1.19 < gains.max() <= 1.2
    assert abs(gains.mean() - 1) < 4 * 0.2 / np.sqrt(3 * COUNT)
    assert torch.allclose(changed[:, 3:], crops[:, 3:], atol=1e-6)


def test_a_band_gain_is_drawn_for_each_band() -> None:
    crops = random_crops()
    config = replace(STILL, s2_jitter=1.0, s2_gain=0.0, s2_contrast=0.0, s2_band_gain=0.05)
    gains = (physical(change(crops, config)) / physical(crops))[:, :3, 0, 0]
    assert np.abs(gains - 1).max() <= 0.0501
    assert np.abs(np.corrcoef(gains.T)[np.triu_indices(3, 1)]).max() < 0.2
    assert gains.std() > 0.02


def test_contrast_spreads_each_band_about_its_own_mean() -> None:
    crops = random_crops()
    config = replace(STILL, s2_jitter=1.0, s2_gain=0.0, s2_contrast=0.3, s2_band_gain=0.0)
    changed = change(crops, config)
    mean = crops[:, :3].mean(dim=(2, 3), keepdim=True)
    assert torch.allclose(changed[:, :3].mean(dim=(2, 3), keepdim=True), mean, atol=1e-5)
    factors = changed[:, :3].std(dim=(2, 3)) / crops[:, :3].std(dim=(2, 3))
    assert torch.allclose(factors, factors[:, :1], rtol=1e-3)
    assert 0.69 < factors.min() < 0.71
    assert 1.29 < factors.max() < 1.31


def test_gain_and_contrast_together_equal_the_plain_formula() -> None:
    crops = random_crops()
    only_gain = replace(STILL, s2_jitter=1.0, s2_contrast=0.0)
    gained = change(crops, only_gain)
    both = change(crops, replace(only_gain, s2_contrast=0.2))
    mean = gained.mean(dim=(2, 3), keepdim=True)
    factor = both[:, :3].std(dim=(2, 3)) / gained[:, :3].std(dim=(2, 3))
    expected = mean[:, :3] + factor[..., None, None] * (gained - mean)[:, :3]
    assert torch.allclose(both[:, :3], expected, atol=1e-4)
    gain = physical(gained)[:, 0, 0, 0] / physical(crops)[:, 0, 0, 0]
    assert abs(np.corrcoef(gain, factor[:, 0])[0, 1]) < 0.2


def test_a_radar_gain_adds_decibels_per_polarization() -> None:
    crops = random_crops()
    changed = change(crops, replace(STILL, s1_gain=1.0, s1_gain_db=1.5))
    offset_db = physical(changed)[:, 3:] - physical(crops)[:, 3:]
    assert np.allclose(offset_db, offset_db[:, :, :1, :1], atol=1e-4)
    assert 1.4 < np.abs(offset_db).max() <= 1.5 + 1e-4
    assert abs(np.corrcoef(offset_db[:, :, 0, 0].T)[0, 1]) < 0.2
    assert torch.allclose(changed[:, :3], crops[:, :3], atol=1e-6)


@pytest.mark.parametrize("looks", [4.0, 16.0])
def test_speckle_adds_the_logarithm_of_unit_mean_gamma_noise(looks: float) -> None:
    crops = random_crops(side=20)
    changed = change(crops, replace(STILL, s1_speckle=1.0, s1_speckle_looks=looks))
    noise_db = physical(changed)[:, 3:] - physical(crops)[:, 3:]
    to_db = 10 / np.log(10)
    mean = to_db * (special.digamma(looks) - np.log(looks))
    variance = to_db**2 * special.polygamma(1, looks)
    assert noise_db.mean() == pytest.approx(mean, abs=0.02)
    assert noise_db.var() == pytest.approx(variance, rel=0.02)
    assert np.mean(10 ** (noise_db / 10)) == pytest.approx(1.0, abs=0.01)
    assert abs(np.corrcoef(noise_db[:, 0].ravel(), noise_db[:, 1].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(noise_db[0].ravel(), noise_db[1].ravel())[0, 1]) < 0.2
    assert torch.allclose(changed[:, :3], crops[:, :3], atol=1e-6)


@pytest.mark.parametrize("polarizations", [1, 2, 4])
def test_each_of_any_number_of_radar_channels_has_noise_of_its_own(polarizations: int) -> None:
    count = 1 + polarizations
    scaling = InputScaling(
        channels=SensorChannels(s2=slice(0, 1), s1=slice(1, count)),
        gain=np.ones(count, dtype=np.float32),
        bias=np.zeros(count, dtype=np.float32),
        physical_per_input=np.arange(1, count + 1, dtype=np.float32),
        physical_at_zero=np.zeros(count, dtype=np.float32),
        valid_range=None,
    )
    uniforms = np.random.default_rng(1).random((COUNT, radiometry_draws(count)))
    config = replace(STILL, s1_speckle=1.0, s1_speckle_looks=4.0)
    crops = torch.zeros(COUNT, count, 20, 20)
    changed = change_radiometry(crops, uniforms, np.zeros(COUNT), config, scaling)
    assert not changed[:, 0].any()
    noise_db = (changed.numpy() * scaling.physical_per_input[:, None, None])[:, 1:]
    between = np.corrcoef(noise_db.swapaxes(0, 1).reshape(polarizations, -1))
    assert np.allclose(between, np.eye(polarizations), atol=0.02)
    spread_db = 10 / np.log(10) * np.sqrt(special.polygamma(1, 4.0))
    assert np.allclose(noise_db.std(axis=(0, 2, 3)), spread_db, rtol=0.02)


def test_blur_smooths_the_optics_alone() -> None:
    crops = random_crops(side=12)
    changed = change(crops, replace(STILL, blur_sigma_px=(1.0, 2.0)), blur=1.0)
    assert (changed[:, :3].std(dim=(2, 3)) < 0.5 * crops[:, :3].std(dim=(2, 3))).all()
    assert torch.allclose(changed[:, 3:], crops[:, 3:], atol=1e-6)


def test_gray_is_the_mean_of_the_optical_bands() -> None:
    crops = random_crops()
    changed = change(crops, replace(STILL, s2_gray=1.0))
    expected = crops[:, :3].mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    assert torch.allclose(changed[:, :3], expected, atol=1e-6)
    assert torch.allclose(changed[:, 3:], crops[:, 3:], atol=1e-6)


@pytest.mark.parametrize(
    ("config", "blur", "channels"),
    [
        (replace(STILL, s2_jitter=0.3), 0.0, slice(0, 3)),
        (replace(STILL, s2_gray=0.3), 0.0, slice(0, 3)),
        (replace(STILL, blur_sigma_px=(1.0, 2.0)), 0.3, slice(0, 3)),
        (replace(STILL, s1_gain=0.3), 0.0, slice(3, 5)),
        (replace(STILL, s1_speckle=0.3), 0.0, slice(3, 5)),
    ],
    ids=["jitter", "gray", "blur", "radar gain", "speckle"],
)
def test_each_change_comes_with_its_probability(
    config: RadiometryConfig, blur: float, channels: slice
) -> None:
    crops = random_crops()
    share = changed_share(crops, change(crops, config, blur=blur), channels)
    assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / COUNT)


def test_values_are_clipped_where_they_have_bounds() -> None:
    crops = random_crops()
    config = RadiometryConfig(s2_gain=1.0, s2_contrast=1.0, s1_gain_db=60.0)
    bounded = change(crops, config, blur=0.5, valid_range=(0.0, 1.0))
    free = change(crops, config, blur=0.5)
    assert free.min() < 0
    assert free.max() > 1
    assert torch.equal(bounded, free.clamp(0, 1))


def test_the_crops_given_stay_as_they_are() -> None:
    crops = random_crops()
    before = crops.clone()
    change(crops, RadiometryConfig(s2_gray=0.5), blur=0.5, valid_range=(0.0, 1.0))
    assert torch.equal(crops, before)
