"""What a build needs to know of pairs, wherever they are described and however they are stored.

`archive_pairs` answers for BigEarthNet's archives, `table_pairs` for tables of any collection.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from bigearth_prep.bands import Band
from bigearth_prep.pairing import PairTable
from bigearth_prep.patch import Raster
from bigearth_prep.raster import Decoder
from bigearth_prep.statistics import PublishedOrigin

PlanRow = dict[str, Any]
"""A pair of the plan: what its manifest row takes over, and where its files are."""


@dataclass(frozen=True, slots=True)
class PairFacts:
    """What is known of a pair beside its pixels, and may have to be read."""

    labels: tuple[str, ...]
    """Classes of the collection, in its order."""

    s1_time: datetime | None
    s2_time: datetime | None


@runtime_checkable
class PairReader(Protocol):
    """Opened files of pairs."""

    def read_bands(
        self, row: PlanRow, bands: Sequence[Band], counts: Counter[Decoder]
    ) -> dict[Band, Raster]:
        """The rasters of a planned pair; `counts` rises by one for each file, by its decoder.

        Raises:
            PatchError: a band's file is missing, cannot be read, or is not what it must be.
            PrepError: the collection cannot be read any more.
        """

    def read_facts(self, row: PlanRow) -> PairFacts:
        """What is known of a planned pair.

        Raises:
            PatchError: it is to be known, and is missing or unreadable.
        """


@runtime_checkable
class PairFiles(Protocol):
    """Where the files of pairs lie: small to send, opened by each task."""

    def open(self) -> AbstractContextManager[PairReader]:
        """The files, for the time of the block."""


@runtime_checkable
class PairSource(Protocol):
    """All pairs of a build."""

    @property
    def table(self) -> PairTable:
        """What is to be read, and what is already known to be left out."""

    @property
    def plan_schema(self) -> pa.Schema:
        """Of the rows that tasks get."""

    @property
    def name(self) -> str:
        """The collection, as the card's source says it."""

    @property
    def metadata_files(self) -> list[tuple[str, Path]]:
        """Tables and descriptions that were read, and what for."""

    @property
    def published_origin(self) -> PublishedOrigin:
        """Whose published statistics are nearest to these patches."""

    @property
    def files(self) -> PairFiles:
        """Where tasks find the pairs' files."""

    def planned_tables(self, shards: Iterable[pa.Array]) -> Iterator[pa.Table]:
        """Rows of `table.pairs`, by their numbers in each shard, as tasks need them."""

    def make_readable(self) -> None:
        """Do what must be done before the first file can be read.

        Raises:
            PrepError: it cannot be done.
        """

    def clean_up(self) -> None:
        """Remove what only the build needed."""
