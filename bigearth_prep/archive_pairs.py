"""Pairs of BigEarthNet's archives: folders or tars in the published layouts, and their tables."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from bigearth_prep.acquisition import s1_time, s2_time
from bigearth_prep.archive import Archive, StorageConfig, drop_scratch, make_readable, scan_archives
from bigearth_prep.bands import Band, bands_of
from bigearth_prep.errors import PrepError
from bigearth_prep.labels import to_official_classes
from bigearth_prep.pair_source import PairFacts, PlanRow
from bigearth_prep.pairing import PAIRS_SCHEMA, PairTable, TableConfig, pair_patches
from bigearth_prep.patch import PatchError, Raster, RejectReason
from bigearth_prep.patch_source import PatchSource, open_source, place_of
from bigearth_prep.raster import Decoder, read_bands, read_patch_json
from bigearth_prep.statistics import PublishedOrigin
from bigearth_prep.tar_index import MEMBERS_TYPE

_PLANNED = pa.schema(
    [
        *PAIRS_SCHEMA,
        pa.field("s2_members", MEMBERS_TYPE),
        pa.field("s1_members", MEMBERS_TYPE),
    ]
)
"""One row per pair to be read; members are null where archives are folders."""


@dataclass(frozen=True, slots=True)
class ArchivePairs:
    """The pairs of two archives."""

    s2: Archive
    s1: Archive
    table: PairTable
    tables: TableConfig
    storage: StorageConfig

    @property
    def name(self) -> str:
        """The collection and the version of its layout."""
        return f"BigEarthNet {self.layout}"

    @property
    def layout(self) -> str:
        """Version of the archive."""
        return self.s2.layout if self.s2.layout != "unknown" else self.s1.layout

    @property
    def metadata_files(self) -> list[tuple[str, Path]]:
        """The tables, and what each was read for."""
        return self.tables.files

    @property
    def published_origin(self) -> PublishedOrigin:
        """Each version has statistics of its own."""
        return "reben" if self.layout == "v2" else "dino-mm"

    @property
    def files(self) -> "ArchiveFiles":
        """Where tasks find the patches."""
        return ArchiveFiles(
            s2_root=self.s2.root.absolute(),
            s1_root=self.s1.root.absolute(),
            has_json=self.layout == "v1",
        )

    @property
    def plan_schema(self) -> pa.Schema:
        """What a task knows of its pairs."""
        return _PLANNED

    def planned_tables(self, shards: Iterable[pa.Array]) -> Iterator[pa.Table]:
        """The pairs of each shard, with the places of their files in tars."""
        pairs = self.table.pairs
        rows_in = {
            archive.sensor: archive.rows_of(pairs.column(f"{archive.sensor}_folder"))
            for archive in (self.s2, self.s1)
        }
        for rows in shards:
            table = pairs.take(rows)
            for archive in (self.s2, self.s1):
                members = archive.members.take(rows_in[archive.sensor].take(rows))
                table = table.append_column(f"{archive.sensor}_members", members)
            yield table

    def make_readable(self) -> None:
        """Decompress what is compressed and known from its index only."""
        make_readable((self.s2, self.s1))

    def clean_up(self) -> None:
        """Remove the tars that archives were decompressed to, unless they are to be kept."""
        drop_scratch((self.s2, self.s1), self.storage)


def scan_pairs(s2: Path, s1: Path, tables: TableConfig, storage: StorageConfig) -> ArchivePairs:
    """The pairs of the archives at these paths.

    Raises:
        PrepError: an archive or a table cannot be read, or they hold nothing.
    """
    optical, radar = scan_archives(s2, s1, storage)
    if not (len(optical.names) or len(radar.names) or tables.metadata or tables.mapping):
        raise PrepError(f"{s2} and {s1} hold no patch; give the extracted archives")
    return ArchivePairs(optical, radar, pair_patches(optical, radar, tables), tables, storage)


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveFiles:
    """Where patches lie."""

    s2_root: Path
    """Folder or plain tar of the Sentinel-2 patches."""

    s1_root: Path
    has_json: bool
    """Patches are of v1, which keeps metadata beside the bands."""

    @contextmanager
    def open(self) -> Iterator["ArchiveReader"]:
        """Both archives, for the time of the block.

        Raises:
            PrepError: one cannot be opened.
        """
        with open_source(self.s2_root) as s2, open_source(self.s1_root) as s1:
            yield ArchiveReader(s2, s1, has_json=self.has_json)


@dataclass(frozen=True, slots=True)
class ArchiveReader:
    """Both open archives."""

    s2: PatchSource
    s1: PatchSource
    has_json: bool

    def read_bands(
        self, row: PlanRow, bands: Sequence[Band], counts: Counter[Decoder]
    ) -> dict[Band, Raster]:
        """The rasters of a pair."""
        s2_place = place_of(row["s2_folder"], row["s2_members"])
        s1_place = place_of(row["s1_folder"], row["s1_members"])
        rasters = read_bands(self.s2, s2_place, bands_of("s2", bands), counts)
        return rasters | read_bands(self.s1, s1_place, bands_of("s1", bands), counts)

    def read_facts(self, row: PlanRow) -> PairFacts:
        """Labels and times, from the table or from the JSON beside the bands."""
        metadata: dict[str, Any] = {}
        if row["labels"] is None or self.has_json:
            place = place_of(row["s2_folder"], row["s2_members"])
            metadata = read_patch_json(self.s2, place)
        labels = _labels_in(metadata) if row["labels"] is None else tuple(row["labels"])
        return PairFacts(labels, s1_time(row["s1_name"]), _sensing_time(row["key"], metadata))


def _sensing_time(key: str, metadata: Mapping[str, Any]) -> datetime | None:
    try:
        return s2_time(key, metadata)
    except ValueError as error:
        raise PatchError(RejectReason.MISSING_METADATA, f"time in the JSON: {error}") from error


def _labels_in(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    names = metadata.get("labels")
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise PatchError(RejectReason.MISSING_METADATA, f"labels in the JSON are {names!r}")
    try:
        labels = to_official_classes(names)
    except PrepError as error:
        raise PatchError(RejectReason.MISSING_METADATA, f"labels in the JSON: {error}") from error
    if not labels:
        raise PatchError(RejectReason.NO_LABEL, "no label is among the 19 classes")
    return labels
