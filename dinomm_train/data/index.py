"""A finished dataset, opened: its card, its manifest, and its splits."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from bigearth_prep.card import CARD_NAME, MANIFEST_NAME, DatasetCard, ShardCard, read_card
from bigearth_prep.errors import PrepError
from dinomm_train.data.shard_file import ShardFolder, ShardStore
from dinomm_train.data.stored_split import StoredSplit, open_split
from dinomm_train.errors import TrainError

_DTYPES = ("uint8", "uint16", "int16", "float16", "float32")
_COLUMNS = ("key", "split", "shard", "offset_s2", "offset_s1", "labels")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredDataset:
    """A dataset folder whose card, manifest and shard sizes agree."""

    path: Path
    """The folder, or the local copy of its card and manifest."""

    location: str
    """Where it was opened: its folder, or its address."""

    store: ShardStore
    """Opens its shards."""

    card: DatasetCard
    """What the folder's card says."""

    checksum: str
    """XXH3-128 of the card's bytes; as the card lists every file's checksum, it names them all."""

    manifest: pa.Table
    """One row per sample of any split, in stored order."""

    manifest_checksum: str
    """XXH3-128 of the manifest's bytes, which cards made by hand may not name."""

    @classmethod
    def open(cls, path: Path, store: ShardStore | None = None) -> "StoredDataset":
        """The dataset in this folder, checked as far as file sizes tell.

        Args:
            path: Holds the card and the manifest.
            store: Where shards come from; by default they lie in the same folder.

        Raises:
            TrainError: the folder is no finished dataset, a shard is missing or of the wrong size,
                or the manifest does not fit the card.
        """
        try:
            card = read_card(path)
        except PrepError as error:
            raise TrainError(str(error)) from error
        _check_dtypes(path, card)
        for name, split in card.splits.items():
            if split.samples and not split.shards:
                raise TrainError(
                    f"{path}: split {name} has no tar to train from; "
                    "build the dataset with --format both or webdataset"
                )
        if store is None:
            _check_shards(path, card)
        manifest, manifest_checksum = _read_manifest(path, card)
        return cls(
            path=path,
            location=str(path.resolve()),
            store=store or ShardFolder(path),
            card=card,
            checksum=xxhash.xxh3_128_hexdigest((path / CARD_NAME).read_bytes()),
            manifest=manifest,
            manifest_checksum=manifest_checksum,
        )

    def split(self, name: str) -> StoredSplit:
        """One split by name.

        Raises:
            TrainError: there is no such split, or its manifest rows do not fit the card.
        """
        if name not in self.card.splits:
            held = ", ".join(self.card.splits) or "none"
            raise TrainError(
                f"{self.location} has no split {name!r}, it holds {held}; name one of them"
            )
        table = self.manifest.filter(pc.equal(self.manifest["split"], name)).combine_chunks()
        return open_split(name, folder=self.path, card=self.card, table=table, store=self.store)


def _check_dtypes(path: Path, card: DatasetCard) -> None:
    for sensor, stored in card.sensors.items():
        if stored.dtype not in _DTYPES:
            raise TrainError(
                f"{path / CARD_NAME}: {sensor} is stored as {stored.dtype}, expected one of "
                f"{', '.join(_DTYPES)}; build the dataset with another --dtype"
            )


def _check_shards(path: Path, card: DatasetCard) -> None:
    for split in card.splits.values():
        for shard in split.shards:
            file = path / shard.name
            require_shard_bytes(str(file), file.stat().st_size if file.is_file() else None, shard)


def require_shard_bytes(where: str, found: int | None, shard: ShardCard) -> None:
    """Pass if a shard has the size that the card says.

    Raises:
        TrainError: it has another one, or is missing (None).
    """
    if found != shard.bytes:
        state = "is missing" if found is None else f"has {found:,} bytes"
        raise TrainError(
            f"shard {where} {state}, the card says {shard.bytes:,} bytes; "
            "copy it again, or run bigearth-prep build-shards again"
        )


def _read_manifest(path: Path, card: DatasetCard) -> tuple[pa.Table, str]:
    file = path / MANIFEST_NAME
    try:
        content = file.read_bytes()
        checksum = xxhash.xxh3_128_hexdigest(content)
        _require_checksum(file, checksum, card)
        # On this thread alone: Arrow's own would live on to the end of the process, where they can
        # abort it, and reading so takes less time.
        with pq.ParquetFile(pa.BufferReader(content), pre_buffer=False) as stored:
            table = stored.read(use_threads=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise TrainError(f"{file} cannot be read ({error}); copy or build it again") from error
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise TrainError(f"{file} lacks the columns {', '.join(missing)}; build the dataset again")
    return table, checksum


def _require_checksum(file: Path, found: str, card: DatasetCard) -> None:
    """Positions in the order of samples are rows of the manifest: another one means others."""
    # Cards made by hand may not have it.
    expected = card.tables.get(MANIFEST_NAME)
    if expected is not None and found != expected:
        raise TrainError(
            f"{file} has the checksum {found}, the card says {expected}: it was changed, or is of "
            f"another build; copy it again together with {CARD_NAME}, or build the dataset again"
        )
