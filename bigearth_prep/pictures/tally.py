"""How many samples, or rejected pairs, of which kind: per split, class, country and month."""

from collections import Counter
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from bigearth_prep.card import DatasetCard

UNKNOWN = "not known"

Tally = dict[str, dict[str, int]]
"""Count by name and, within it, by split."""


def tally(names: Iterable[str | None], splits: Iterable[str | None]) -> Tally:
    """How often each name occurs in each split; most frequent names first."""
    counts: Tally = {}
    pairs = Counter(zip(names, splits, strict=True))
    for (name, split), count in pairs.items():
        counts.setdefault(name or UNKNOWN, {})[split or UNKNOWN] = count
    return dict(sorted(counts.items(), key=lambda item: (-sum(item[1].values()), item[0])))


def tally_splits(card: DatasetCard) -> Tally:
    """Samples of each split, in the order of the card."""
    return {split: {split: part.samples} for split, part in card.splits.items()}


def tally_classes(manifest: pa.Table, classes: Sequence[str]) -> Tally:
    """Samples that bear each class; a sample counts once for each of its classes."""
    labels = manifest.column("labels").combine_chunks()
    splits = manifest.column("split").take(pc.list_parent_indices(labels))
    found = tally(pc.list_flatten(labels).to_pylist(), splits.to_pylist())
    return found | {name: {} for name in classes if name not in found}


def tally_months(manifest: pa.Table) -> Tally:
    """Samples by the calendar month of the optical acquisition, in order of time."""
    months = pc.strftime(manifest.column("s2_time"), format="%Y-%m")
    return dict(sorted(tally(months.to_pylist(), manifest.column("split").to_pylist()).items()))


def tally_column(table: pa.Table, name: str) -> Tally:
    """Rows by the values of a column."""
    return tally(table.column(name).to_pylist(), table.column("split").to_pylist())
