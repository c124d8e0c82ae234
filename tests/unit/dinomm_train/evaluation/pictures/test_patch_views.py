from pathlib import Path

import numpy as np

from bigearth_prep.card import read_card
from dinomm_train.evaluation.pictures.patch_views import radar_colour, true_colour
from tests.shard_fixture import make_dataset


def test_colours_are_the_bands_physical_values_stretched(tmp_path: Path) -> None:
    card = read_card(make_dataset(tmp_path, samples={"train": 1}, size_px=8))
    image = np.random.default_rng(0).random((14, 8, 8)).astype(np.float32)
    optical = true_colour(image, card)
    assert optical is not None
    names = ("B04", "B03", "B02")
    physical = []
    for name in names:
        one = card.normalization.parameters[name]
        physical.append(one.lower + image[card.channels.index(name)] * (one.upper - one.lower))
    low, high = np.percentile(physical, [2, 98])
    expected = np.clip((np.stack(physical, axis=-1) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(optical, expected, atol=1e-4)
    radar = radar_colour(image, card)
    assert radar is not None
    assert radar.shape == (8, 8, 3)


def test_bands_that_are_missing_make_no_picture(tmp_path: Path) -> None:
    import dataclasses

    card = read_card(make_dataset(tmp_path, samples={"train": 1}, size_px=8))
    bare = dataclasses.replace(card, sensors={"s1": card.sensors["s1"]})
    image = np.zeros((2, 8, 8), dtype=np.float32)
    assert true_colour(image, bare) is None
    assert radar_colour(image, bare) is not None
