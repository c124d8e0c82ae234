"""Which pictures a dataset's bands allow, and that grey is grey."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bigearth_prep.card import DatasetCard, read_card
from bigearth_prep.pictures import contact_sheet
from bigearth_prep.pictures.contact_sheet import views_of
from tests.shard_fixture import make_dataset


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> DatasetCard:
    folder: Path = tmp_path_factory.mktemp("dataset")
    return read_card(make_dataset(folder, samples={"train": 1}, size_px=8))


def with_optical(card: DatasetCard, *names: str) -> DatasetCard:
    """The same dataset, its first optical bands under these names, the others gone."""
    ends = {name: getattr(card.sensors["s2"], name)[: len(names)] for name in ("scale", "offset")}
    optical = replace(card.sensors["s2"], bands=names, **ends)
    return replace(card, sensors=card.sensors | {"s2": optical})


def test_bigearthnets_bands_have_their_three_pictures(card: DatasetCard) -> None:
    assert list(views_of(card).values()) == [
        ("B04", "B03", "B02"),
        ("B08", "B04", "B03"),
        ("VV", "VH"),
    ]


@pytest.mark.parametrize(
    ("names", "title"),
    [(("blue", "green", "red", "nir"), "s2 (blue, green, red)"), (("B05", "B06"), "s2 (B05)")],
)
def test_other_bands_are_shown_by_their_first(
    card: DatasetCard, names: tuple[str, ...], title: str
) -> None:
    assert list(views_of(with_optical(card, *names))) == ["radar (VV, VH, VV - VH)", title]


def test_one_band_is_shown_in_grey(card: DatasetCard) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (1, 8, 8)).astype(np.uint8)
    (picture,) = contact_sheet._compose(with_optical(card, "x"), [{"s2": stored}], ("x",))
    assert picture.shape == (8, 8, 3)
    assert (picture[..., 0] == picture[..., 1]).all()
    assert (picture[..., 0] == picture[..., 2]).all()
    assert len(np.unique(picture)) > 10


def test_a_cloud_in_one_patch_does_not_darken_the_others(card: DatasetCard) -> None:
    rng = np.random.default_rng(0)
    ground = [{"s2": rng.integers(10, 60, (1, 8, 8)).astype(np.uint8)} for _ in range(3)]
    cloud = {"s2": np.full((1, 8, 8), 255, np.uint8)}
    pictures = contact_sheet._compose(with_optical(card, "x"), [*ground, cloud], ("x",))
    assert all(0.3 < float(picture.mean()) < 0.7 for picture in pictures[:3])
    assert pictures[3].min() == 1


def test_a_long_label_is_shown_whole() -> None:
    name = "Land principally occupied by agriculture, with significant areas of natural vegetation"
    shown = contact_sheet._listed(name)
    assert " ".join(shown.removeprefix("\N{BULLET}").split()) == name
    assert max(map(len, shown.splitlines())) <= 34
