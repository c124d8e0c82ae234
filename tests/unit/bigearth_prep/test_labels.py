"""The label reduction against the counts and traps of the official nomenclature."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigearth_prep.errors import PrepError
from bigearth_prep.labels import CLASSES, DROPPED_LEVEL3, multi_hot, to_official_classes

REAL = Path(__file__).parents[4] / "shared" / "real"


def test_there_are_nineteen_classes_in_the_official_order() -> None:
    assert len(CLASSES) == 19
    assert CLASSES[0] == "Urban fabric"
    assert CLASSES[-1] == "Marine waters"
    assert CLASSES.index("Coniferous forest") == 9


def test_thirty_two_level_three_classes_are_kept_and_eleven_dropped() -> None:
    assert len(DROPPED_LEVEL3) == 11
    assert to_official_classes(sorted(DROPPED_LEVEL3)) == ()


def test_v1_slash_spelling_counts_as_the_v2_comma() -> None:
    both = to_official_classes(["Transitional woodland/shrub"])
    assert both == to_official_classes(["Transitional woodland, shrub"]) != ()


def test_merged_names_appear_once_in_official_order() -> None:
    names = ["Sea and ocean", "Rice fields", "Peatbogs", "Non-irrigated arable land", "Burnt areas"]
    assert to_official_classes(names) == ("Arable land", "Inland wetlands", "Marine waters")


def test_an_unknown_name_is_refused_by_name() -> None:
    with pytest.raises(PrepError, match="Moon dust"):
        to_official_classes(["Pastures", "Moon dust"])


@given(chosen=st.lists(st.sampled_from(CLASSES)))
def test_multi_hot_inverts_to_the_same_classes(chosen: list[str]) -> None:
    row = multi_hot(chosen)
    assert [CLASSES[index] for index in np.flatnonzero(row)] == list(to_official_classes(chosen))


@pytest.mark.skipif(not REAL.exists(), reason="real patches are not at hand")
def test_real_patches_reduce_to_what_the_official_v2_table_says_of_the_class_names() -> None:
    paths = sorted((REAL / "v1" / "BigEarthNet-v1.0").glob("*/*.json"))
    reduced = [to_official_classes(json.loads(path.read_text())["labels"]) for path in paths]
    assert len(reduced) == 4
    assert ("Pastures",) in reduced
