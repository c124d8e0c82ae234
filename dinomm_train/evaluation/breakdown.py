"""Kinds of test samples: by country, season, snow, clouds, and number of labels."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from dinomm_train.data.stored_split import StoredSplit

_MANY_LABELS = 5

_SEASONS = ("winter", "spring", "summer", "autumn")
"""Of the northern hemisphere, by month from December on."""

_FLAGS = {"snow": "contains_seasonal_snow", "cloud or shadow": "contains_cloud_or_shadow"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Some of a split's samples."""

    kind: str
    """What samples are told apart by, such as `country`."""

    name: str
    members: Bool[np.ndarray, " sample"]


def group_samples(split: StoredSplit) -> tuple[Group, ...]:
    """Every group of the split that has a member; what the manifest does not know makes none.

    A kind that does not tell samples apart is left out.
    """
    kinds = (
        *_by_country(split.table),
        *_by_season(split.table),
        *_by_flag(split.table),
        *_by_labels(split),
    )
    groups = [group for group in kinds if group.members.any()]
    told = [group.kind for group in groups]
    return tuple(group for group in groups if told.count(group.kind) > 1)


def _by_country(table: pa.Table) -> Iterator[Group]:
    if "country" not in table.column_names:
        return
    column = np.array(table["country"].to_pylist(), dtype=object)
    for name in sorted({one for one in column if one}):
        yield Group(kind="country", name=name, members=column == name)


def _by_season(table: pa.Table) -> Iterator[Group]:
    if "s2_time" not in table.column_names or not pa.types.is_timestamp(
        table.schema.field("s2_time").type
    ):
        return
    # Months count from December: three make a season.
    month = pc.fill_null(pc.month(table["s2_time"]), -1).to_numpy()
    season = np.where(month > 0, month % 12 // 3, -1)
    for number, name in enumerate(_SEASONS):
        yield Group(kind="season", name=name, members=season == number)


def _by_flag(table: pa.Table) -> Iterator[Group]:
    for kind, column in _FLAGS.items():
        if column in table.column_names:
            flag = np.array(table[column].to_pylist(), dtype=object)
            yield Group(kind=kind, name="no", members=flag == False)  # noqa: E712 (null is neither)
            yield Group(kind=kind, name="yes", members=flag == True)  # noqa: E712


def _by_labels(split: StoredSplit) -> Iterator[Group]:
    count = split.labels.sum(axis=1)
    for number in range(1, _MANY_LABELS):
        yield Group(kind="labels", name=str(number), members=count == number)
    yield Group(kind="labels", name=f"{_MANY_LABELS} or more", members=count >= _MANY_LABELS)
