import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bigearth_prep.labels import CLASSES
from bigearth_prep.synthetic.cover import (
    COVER_TYPES,
    MIN_LABEL_SHARE,
    CoverType,
    LandCover,
    draw_land_cover,
)

EVEN = (1,) * len(CLASSES)


def _optical_look(kind: CoverType) -> tuple[object, ...]:
    return (kind.ground, kind.accent, kind.accent_share, kind.contrast, kind.texture)


def _radar_look(kind: CoverType) -> tuple[object, ...]:
    return (kind.vv_db, kind.vh_db, kind.relief_db, kind.texture)


def _named(name: str) -> CoverType:
    return COVER_TYPES[CLASSES.index(name)]


def test_labels_are_the_classes_that_fill_three_percent_of_the_pixels() -> None:
    least = round(MIN_LABEL_SHARE * 14_400)
    cover = np.full((120, 120), CLASSES.index("Pastures"), dtype=np.uint8)
    cover.ravel()[:least] = CLASSES.index("Urban fabric")
    cover.ravel()[least : 2 * least - 1] = CLASSES.index("Inland waters")
    drawn = LandCover(classes=cover, texture=np.zeros((120, 120), dtype=np.float32))
    assert drawn.labels == ("Urban fabric", "Pastures")


@given(seed=st.integers(0, 2**32), weights=st.lists(st.integers(0, 99), min_size=19, max_size=19))
def test_only_classes_with_weight_are_drawn_and_some_label_always_is(
    seed: int, weights: list[int]
) -> None:
    weights[seed % 19] += 1
    drawn = draw_land_cover(np.random.default_rng(seed), tuple(weights))
    assert all(weights[index] > 0 for index in np.unique(drawn.classes))
    assert drawn.labels


def test_classes_come_in_proportion_to_their_weights() -> None:
    rng = np.random.default_rng(0)
    weights = tuple(60 if index < 2 else 1 for index in range(len(CLASSES)))
    labels = [draw_land_cover(rng, weights).labels for _ in range(60)]
    heavy = sum(name in found for found in labels for name in CLASSES[:2])
    assert heavy > 0.6 * sum(map(len, labels))


def test_each_texture_shows_its_mean_and_spread_within_a_patch() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_land_cover(rng, EVEN).texture for _ in range(40)]
    assert abs(np.mean(drawn)) < 0.1
    assert 0.8 < np.std(drawn) < 1.1


def test_every_class_has_a_look() -> None:
    assert len(COVER_TYPES) == len(CLASSES)


def test_radar_alone_tells_industry_from_homes_and_wetland_from_grassland() -> None:
    for one, other in (
        ("Urban fabric", "Industrial or commercial units"),
        ("Inland wetlands", "Natural grassland and sparsely vegetated areas"),
    ):
        assert _optical_look(_named(one)) == _optical_look(_named(other))
        assert abs(_named(one).vv_db - _named(other).vv_db) >= 4


def test_optics_alone_tell_the_forests_apart_and_lakes_from_the_sea() -> None:
    for one, other in (
        ("Broad-leaved forest", "Coniferous forest"),
        ("Coniferous forest", "Mixed forest"),
        ("Inland waters", "Marine waters"),
    ):
        assert _radar_look(_named(one)) == _radar_look(_named(other))
        assert _optical_look(_named(one)) != _optical_look(_named(other))
