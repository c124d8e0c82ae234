"""All crops of a batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dinomm_train.config import (
    RECIPES,
    CropConfig,
    PublishedConfig,
    RadiometryConfig,
    SensorDropConfig,
    ViewConfig,
)
from dinomm_train.data.draws import ViewKey
from dinomm_train.data.inputs import InputScaling, SensorChannels
from dinomm_train.data.sensor_drop import BOTH, S1_DROPPED, S2_DROPPED
from dinomm_train.data.views import Views, make_views

SMALL = CropConfig(global_px=10, local_px=6, local_count=3)
STILL = RadiometryConfig(s2_jitter=0.0, s1_gain=0.0, s1_speckle=0.0, blur=(0.0, 0.0, 0.0))
NO_DROP = SensorDropConfig(probability=0.0)
CHAINS = {
    "fixed": ViewConfig(crops=SMALL),
    "published": replace(
        RECIPES["paper"].views,
        crops=replace(RECIPES["paper"].views.crops, global_px=10, local_px=6),
    ),
}


def scaling_of(*, optical: int = 12, radar: int = 2, bounded: bool = True) -> InputScaling:
    ones = np.ones(optical + radar, dtype=np.float32)
    return InputScaling(
        channels=SensorChannels(s2=slice(0, optical), s1=slice(optical, optical + radar)),
        gain=ones,
        bias=0 * ones,
        physical_per_input=20 * ones,
        physical_at_zero=0 * ones,
        valid_range=(0.0, 1.0) if bounded else None,
    )


def images_of(count: int, channels: int = 14) -> Tensor:
    return torch.rand((count, channels, 16, 16), generator=torch.Generator().manual_seed(count))


def key_of(count: int, *, seed: int = 0, epoch: int = 0) -> ViewKey:
    return ViewKey(seed=seed, epoch=epoch, sample_ids=np.arange(100, 100 + count, dtype=np.uint64))


def views_of(config: ViewConfig, count: int = 4) -> Views:
    return make_views(images_of(count), key_of(count), config, scaling_of())


@pytest.mark.parametrize("chain", CHAINS)
def test_views_come_one_after_another_for_the_whole_batch(chain: str) -> None:
    config = CHAINS[chain]
    views = views_of(config)
    large, small = views.student_crops
    assert large.shape == views.teacher_crops.shape == (2 * 4, 14, 10, 10)
    assert small.shape == (config.crops.local_count * 4, 14, 6, 6)
    assert views.states.shape == (len(large) + len(small),)


@pytest.mark.parametrize("chain", CHAINS)
def test_a_sample_looks_the_same_in_any_batch(chain: str) -> None:
    images, key = images_of(5), key_of(5)
    together = make_views(images, key, CHAINS[chain], scaling_of())
    for index in range(5):
        alone = make_views(
            images[index : index + 1],
            replace(key, sample_ids=key.sample_ids[index : index + 1]),
            CHAINS[chain],
            scaling_of(),
        )
        for mine, all_of_them in zip(alone.student_crops, together.student_crops, strict=True):
            assert torch.allclose(mine, all_of_them[index::5], atol=1e-6)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("other", [key_of(4, seed=1), key_of(4, epoch=1)], ids=["seed", "epoch"])
def test_another_seed_or_epoch_brings_other_views(chain: str, other: ViewKey) -> None:
    first = make_views(images_of(4), key_of(4), CHAINS[chain], scaling_of())
    again = make_views(images_of(4), key_of(4), CHAINS[chain], scaling_of())
    second = make_views(images_of(4), other, CHAINS[chain], scaling_of())
    assert torch.equal(first.teacher_crops, again.teacher_crops)
    assert not torch.equal(first.teacher_crops, second.teacher_crops)


@pytest.mark.parametrize("chain", CHAINS)
def test_no_two_views_of_a_sample_are_alike(chain: str) -> None:
    views = views_of(CHAINS[chain])
    for crops in views.student_crops:
        flat = crops[::4].flatten(1)
        assert (torch.cdist(flat, flat) + torch.eye(len(flat))).min() > 0.1


@pytest.mark.parametrize("chain", CHAINS)
def test_what_sensors_hold_lies_in_the_valid_range_and_what_they_lack_is_the_fill(
    chain: str,
) -> None:
    views = views_of(CHAINS[chain], count=40)
    fill = CHAINS[chain].sensor_drop.fill
    split_at = len(views.student_crops[0])
    for crops, states in zip(
        views.student_crops, (views.states[:split_at], views.states[split_at:]), strict=True
    ):
        for state, gone in ((S1_DROPPED, slice(12, 14)), (S2_DROPPED, slice(0, 12))):
            assert (crops[torch.from_numpy(states == state), gone] == fill).all()
        held = crops[torch.from_numpy(states == BOTH)]
        assert 0 <= held.min() < held.max() <= 1
    assert {int(state) for state in views.states} == {BOTH, S1_DROPPED, S2_DROPPED}


def test_the_teacher_can_be_spared_the_drop() -> None:
    config = ViewConfig(crops=SMALL, sensor_drop=SensorDropConfig(drop_teacher=False))
    views = views_of(config, count=20)
    assert (views.teacher_crops >= 0).all()
    whole = torch.from_numpy(views.states[:40] == BOTH)
    assert torch.equal(views.teacher_crops[whole], views.student_crops[0][whole])
    assert (views.student_crops[0][~whole] == -1).any()


def test_by_default_the_teacher_sees_what_the_student_sees() -> None:
    views = views_of(CHAINS["fixed"], count=20)
    assert torch.equal(views.teacher_crops, views.student_crops[0])


@pytest.mark.parametrize(("optical", "radar"), [(12, 0), (0, 2)])
def test_a_single_sensor_is_never_dropped(optical: int, radar: int) -> None:
    scaling = scaling_of(optical=optical, radar=radar)
    views = make_views(images_of(9, optical + radar), key_of(9), CHAINS["fixed"], scaling)
    assert (views.states == BOTH).all()
    assert (views.teacher_crops >= 0).all()


def test_multi_crop_can_be_off() -> None:
    views = views_of(ViewConfig(crops=replace(SMALL, local_count=0)))
    assert [len(crops) for crops in views.student_crops] == [8]


def test_global_crops_show_more_of_a_patch_than_local_ones() -> None:
    areas = replace(SMALL, global_scale=(1.0, 1.0), local_scale=(0.25, 0.25), aspect=(1.0, 1.0))
    config = ViewConfig(crops=areas, radiometry=STILL, sensor_drop=NO_DROP)
    ramp = torch.linspace(0.2, 0.8, 16).expand(3, 14, 16, 16)
    views = make_views(ramp, key_of(3), config, scaling_of())
    large, small = (
        (crops.amax((1, 2, 3)) - crops.amin((1, 2, 3))) for crops in views.student_crops
    )
    # Half-pixel centres keep a crop's outermost samples inside its outermost pixels.
    assert large.min() > 0.5
    assert small.max() < 0.3


def test_shrinking_averages_where_it_is_asked_to() -> None:
    config = ViewConfig(crops=SMALL, radiometry=STILL, sensor_drop=NO_DROP)
    smooth = replace(config, crops=replace(SMALL, antialias=True))
    rough_crops, smooth_crops = (views_of(one).teacher_crops for one in (config, smooth))
    assert smooth_crops.std() < 0.95 * rough_crops.std()


def test_roles_decide_which_views_are_blurred() -> None:
    sharp = views_of(ViewConfig(crops=SMALL, radiometry=STILL, sensor_drop=NO_DROP))
    for role, (group, views) in enumerate([(0, slice(0, 4)), (0, slice(4, 8)), (1, slice(0, 12))]):
        probabilities = [0.0, 0.0, 0.0]
        probabilities[role] = 1.0
        first, others, local = probabilities
        radiometry = replace(STILL, blur=(first, others, local), blur_sigma_px=(1.0, 2.0))
        soft = views_of(ViewConfig(crops=SMALL, radiometry=radiometry, sensor_drop=NO_DROP))
        for index in range(2):
            moved = (soft.student_crops[index] - sharp.student_crops[index]).abs().amax((1, 2, 3))
            expected = torch.zeros(len(moved), dtype=torch.bool)
            if index == group:
                expected[views] = True
            assert torch.equal(moved > 1e-3, expected)


def test_only_the_second_global_view_is_solarized() -> None:
    published = PublishedConfig(jitter=0.0, gray=0.0, blur=(0.0, 0.0, 0.0), solarize=1.0)
    views = views_of(
        ViewConfig(chain="published", crops=SMALL, published=published, sensor_drop=NO_DROP)
    )
    lowest = torch.cat([crops.amin((1, 2, 3)) for crops in views.student_crops])
    expected = torch.zeros(len(lowest), dtype=torch.bool)
    expected[4:8] = True
    assert torch.equal(lowest >= 127 / 255, expected)
