"""Which pairs of a table stay, and in which split; what is left out, as rejected rows."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigearth_prep.manifest import REJECTED_SCHEMA
from bigearth_prep.patch import RejectReason
from bigearth_prep.shard_plan import split_by_location
from bigearth_prep.tables import read_names, read_split_files

log = logging.getLogger(__name__)


@runtime_checkable
class SplitRule(Protocol):
    """How pairs come into splits."""

    @property
    def splits(self) -> tuple[tuple[str, Path], ...]:
        """Split name and list of keys."""

    @property
    def split_ratio(self) -> tuple[float, float, float]:
        """Shares of train, validation and test."""

    @property
    def seed(self) -> int:
        """Of a split by ratio."""


def drop_excluded(pairs: pa.Table, lists: Sequence[Path]) -> tuple[pa.Table, list[pa.Table]]:
    """Pairs that no list excludes, and those that one does, as rejected rows."""
    rejected = []
    for path in lists:
        names = pa.array(read_names(path), pa.string())
        hit = pc.or_(
            pc.is_in(pairs.column("key"), value_set=names),
            pc.fill_null(pc.is_in(pairs.column("s2v1_name"), value_set=names), False),  # noqa: FBT003
        )
        log.info(
            "%s: %s of its %s patches are here",
            path,
            f"{pc.sum(hit).as_py() or 0:,}",
            f"{len(names):,}",
        )
        mask = hit.to_numpy()
        rejected.append(rejected_rows(pairs, mask, _list_reason(path), f"listed in {path.name}"))
        pairs = _flag_absent(kept_rows(pairs, pc.invert(hit)), _list_reason(path))
    return pairs, rejected


def _list_reason(path: Path) -> RejectReason:
    name = path.name.lower()
    by_word = {
        "snow": RejectReason.SNOW,
        "cloud": RejectReason.CLOUD,
        "no_19": RejectReason.NO_LABEL,
    }
    return next((by_word[word] for word in by_word if word in name), RejectReason.EXCLUDED)


def _flag_absent(pairs: pa.Table, reason: RejectReason) -> pa.Table:
    """What a snow or cloud list leaves is known to be free of it."""
    column = {
        RejectReason.SNOW: "contains_seasonal_snow",
        RejectReason.CLOUD: "contains_cloud_or_shadow",
    }.get(reason)
    if column is None:
        return pairs
    index = pairs.column_names.index(column)
    return pairs.set_column(index, column, pc.fill_null(pairs.column(column), False))  # noqa: FBT003


def drop_unlabelled(pairs: pa.Table) -> tuple[pa.Table, list[pa.Table]]:
    """The pairs without those that are known to bear no class, and those as rejected rows."""
    lengths = pc.list_value_length(pairs.column("labels"))
    empty = pc.fill_null(pc.equal(lengths, 0), False)  # noqa: FBT003
    why = "no label is among the 19 classes"
    dropped = rejected_rows(pairs, empty.to_numpy(), RejectReason.NO_LABEL, why)
    return kept_rows(pairs, pc.invert(empty)), [dropped]


def assign_splits(
    pairs: pa.Table, rule: SplitRule, locations: Sequence[str] | None
) -> tuple[pa.Table, list[pa.Table]]:
    """The pairs of a split, with it, and those of none, as rejected rows.

    Args:
        pairs: All of them.
        rule: Lists of splits, which win over all else; shares and seed of a split by ratio.
        locations: What must not part in a split by ratio; None for the pairs' own column.
    """
    index = pairs.column_names.index("split")
    if rule.splits:
        split_of = read_split_files(rule.splits)
        keys = pairs.column("key").to_pylist()
        v1_names = pairs.column("s2v1_name").to_pylist()
        splits: Sequence[str | None] = [
            split_of.get(key) or (split_of.get(v1_name) if v1_name else None)
            for key, v1_name in zip(keys, v1_names, strict=True)
        ]
    elif locations is None:
        splits = pairs.column("split").to_pylist()
    else:
        splits = split_by_location(locations, rule.split_ratio, rule.seed)
        log.info("split by ratio, seed %d: %s", rule.seed, dict(Counter(splits)))
    pairs = pairs.set_column(index, "split", pa.array(splits, pa.string()))
    listed = pc.is_valid(pairs.column("split"))
    unlisted = pc.invert(listed).to_numpy()
    why = "no split lists it"
    dropped = rejected_rows(pairs, unlisted, RejectReason.NOT_IN_SPLIT, why)
    return kept_rows(pairs, listed), [dropped]


def kept_rows(pairs: pa.Table, kept: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The pairs to keep; half a million of them are not copied where that is all."""
    return pairs if pc.all(kept, min_count=0).as_py() else pairs.filter(kept)


def rejected_rows(pairs: pa.Table, mask: np.ndarray, reason: RejectReason, detail: str) -> pa.Table:
    """The masked pairs as rows of the table of rejected ones."""
    rows = pairs.select(["key", "s1_name", "split"]).filter(pa.array(mask))
    return rejected_names(
        reason, detail, **{name: _texts(rows, name) for name in rows.column_names}
    )


def _texts(rows: pa.Table, column: str) -> list[str | None]:
    texts: list[str | None] = rows.column(column).to_pylist()
    return texts


def rejected_names(
    reason: RejectReason,
    detail: str,
    *,
    key: Sequence[str | None] = (),
    s1_name: Sequence[str | None] = (),
    split: Sequence[str | None] = (),
) -> pa.Table:
    """Rows of the table of rejected pairs, of these names; what is not given is null."""
    count = max(len(key), len(s1_name))
    columns = [
        pa.array(names, pa.string()) if len(names) else pa.nulls(count, pa.string())
        for names in (key, s1_name, split)
    ]
    texts = [pa.array([text] * count, pa.string()) for text in (str(reason), detail)]
    return pa.table([*columns, *texts], schema=REJECTED_SCHEMA)
