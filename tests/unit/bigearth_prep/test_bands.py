"""The band table against the published grid sizes, and selections by name."""

import pytest

from bigearth_prep.bands import ALL_BANDS, bands_of, select_bands
from bigearth_prep.errors import PrepError


def test_fourteen_bands_in_the_order_of_the_published_weights() -> None:
    names = [
        "B01",
        "B02",
        "B03",
        "B04",
        "B05",
        "B06",
        "B07",
        "B08",
        "B8A",
        "B09",
        "B11",
        "B12",
        "VH",
        "VV",
    ]
    assert [band.name for band in ALL_BANDS] == names


@pytest.mark.parametrize(("name", "side"), [("B08", 120), ("B8A", 60), ("B09", 20), ("VV", 120)])
def test_native_sizes_are_those_of_the_archive(name: str, side: int) -> None:
    assert select_bands([name])[0].native_px == side


def test_a_selection_keeps_its_order_within_each_sensor() -> None:
    bands = select_bands(["VV", "B04", "VH", "B02"])
    assert [band.name for band in bands_of("s2", bands)] == ["B04", "B02"]
    assert [band.name for band in bands_of("s1", bands)] == ["VV", "VH"]


@pytest.mark.parametrize("names", [["B10"], ["B02", "B02"], [""]])
def test_unknown_and_repeated_names_are_refused(names: list[str]) -> None:
    with pytest.raises(PrepError, match="band"):
        select_bands(names)
