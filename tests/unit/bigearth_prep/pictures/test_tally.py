"""Counts against rows written out by hand."""

from datetime import UTC, datetime

import pyarrow as pa

from bigearth_prep.labels import CLASSES
from bigearth_prep.pictures.tally import UNKNOWN, tally, tally_classes, tally_column, tally_months

MANIFEST = pa.table(
    {
        "split": ["train", "train", "test"],
        "labels": [["Pastures", "Arable land"], ["Pastures"], ["Pastures"]],
        "country": ["Austria", None, "Austria"],
        "s2_time": pa.array(
            [datetime(2018, 1, 31, 23, tzinfo=UTC), datetime(2017, 6, 1, tzinfo=UTC), None],
            pa.timestamp("ms", tz="UTC"),
        ),
    }
)


def test_a_sample_counts_once_for_each_of_its_classes_and_every_class_is_listed() -> None:
    counts = tally_classes(MANIFEST, CLASSES)
    assert counts["Pastures"] == {"train": 2, "test": 1}
    assert counts["Arable land"] == {"train": 1}
    assert set(counts) == set(CLASSES)
    assert next(iter(counts)) == "Pastures"


def test_months_come_in_order_of_time_and_unknown_ones_are_said() -> None:
    counts = tally_months(MANIFEST)
    assert counts == {"2017-06": {"train": 1}, "2018-01": {"train": 1}, UNKNOWN: {"test": 1}}
    assert list(counts) == ["2017-06", "2018-01", UNKNOWN]


def test_a_column_is_counted_by_split_most_frequent_first() -> None:
    counts = tally_column(MANIFEST, "country")
    assert list(counts.items()) == [("Austria", {"train": 1, "test": 1}), (UNKNOWN, {"train": 1})]


def test_names_as_frequent_as_each_other_come_by_alphabet() -> None:
    assert list(tally(["b", "a", "c", "c"], ["train"] * 4)) == ["c", "a", "b"]
