"""Datasets wherever they lie: in a folder, staged from one onto a local disk, or far away."""

import logging
import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import xxhash

from bigearth_prep.card import CARD_NAME, MANIFEST_NAME, DatasetCard, read_card
from bigearth_prep.errors import PrepError
from bigearth_prep.whole_file import whole_file, write_bytes
from dinomm_train.data.cached_shards import CachedShards
from dinomm_train.data.download import ExpectedFile, Source
from dinomm_train.data.index import StoredDataset, require_shard_bytes
from dinomm_train.data.shard_cache import ShardCache, private_folder, wait_for_lock
from dinomm_train.data.shard_file import ShardFolder
from dinomm_train.data.storage_options import StorageOptions
from dinomm_train.errors import TrainError

_ASKING_THREADS = 16
_MOUNTS = Path("/proc/self/mountinfo")

_log = logging.getLogger(__name__)


def is_remote(location: str) -> bool:
    """Whether this is an address, such as s3://bucket/dataset, and no folder."""
    return "://" in location


def open_dataset(location: str | Path, storage: StorageOptions | None = None) -> StoredDataset:
    """The dataset at a folder or an address.

    Raises:
        TrainError: there is no finished dataset, a shard is missing or of the wrong size, the
            manifest does not fit the card, or the cache cannot be used.
    """
    storage = storage or StorageOptions()
    if is_remote(str(location)):
        return _open_remote(str(location), storage)
    stored = StoredDataset.open(Path(location))
    if storage.stage_dir is None:
        return stored
    source = Source(str(stored.path.resolve()), storage.retry)
    store = _open_store(stored.checksum, stored.card, source, storage.stage_dir, storage)
    return replace(stored, store=store)


def open_tables(
    location: str | Path, cache_dir: Path | None = None, checksum: str = ""
) -> StoredDataset:
    """The dataset's card and manifest; its shards may be gone, and none can be relied on.

    Args:
        location: A folder or an address.
        cache_dir: Keeps what is fetched from an address.
        checksum: Of the card, if known: what the cache holds of it is taken without asking.

    Raises:
        TrainError: there is no finished dataset, or the manifest does not fit the card.
    """
    if not is_remote(str(location)):
        return StoredDataset.open(Path(location), ShardFolder(Path(location)))
    root = private_folder(cache_dir or choose_cache_dir(os.environ))
    folder = root / checksum
    if not checksum or not (folder / CARD_NAME).is_file():
        folder = _fetch_tables(Source(str(location)), root)
    return replace(StoredDataset.open(folder, ShardFolder(folder)), location=str(location))


def choose_cache_dir(environment: Mapping[str, str]) -> Path:
    """Where remote shards are kept unless a folder is named: never the home folder unasked."""
    return Path(environment.get("SLURM_TMPDIR") or tempfile.gettempdir())


def _lies_in_memory(folder: Path) -> bool:
    """Whether a folder's files take memory and no disk."""
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    # 36 35 98:0 /in/it /mounted/at options… - type of file system …
    mounts = (line.split(" - ") for line in _MOUNTS.read_text().splitlines())
    types = {kind.split()[0] for about, kind in mounts if about.split()[2] == number}
    return bool(types & {"tmpfs", "ramfs"})


def _open_remote(location: str, storage: StorageOptions) -> StoredDataset:
    source = Source(location, storage.retry)
    cache_dir = storage.cache_dir or choose_cache_dir(os.environ)
    folder = _fetch_tables(source, private_folder(cache_dir))
    card = read_card(folder)
    store = _open_store(folder.name, card, source, cache_dir, storage)
    _check_sizes(source, store, card)
    return replace(StoredDataset.open(folder, store), location=location)


def _fetch_tables(source: Source, root: Path) -> Path:
    """The folder of the dataset's checksum, with its card and manifest."""
    with tempfile.TemporaryDirectory(dir=root, prefix="card-") as name:
        fetched = Path(name) / CARD_NAME
        source.fetch(ExpectedFile(name=CARD_NAME), fetched)
        content = fetched.read_bytes()
        try:
            card = read_card(fetched.parent)
        except PrepError as error:
            raise TrainError(f"{source.location}: {error}") from error
    folder = root / xxhash.xxh3_128_hexdigest(content)
    folder.mkdir(exist_ok=True)
    with wait_for_lock(folder / "tables.lock"):
        if not (folder / CARD_NAME).is_file():
            manifest = ExpectedFile(name=MANIFEST_NAME, xxh3_128=card.tables.get(MANIFEST_NAME))
            with whole_file(folder / MANIFEST_NAME) as partial:
                source.fetch(manifest, partial)
            # Last, because it says that the manifest is there.
            write_bytes(folder / CARD_NAME, content)
    return folder


def _open_store(
    checksum: str, card: DatasetCard, source: Source, folder: Path, storage: StorageOptions
) -> CachedShards:
    cache = ShardCache(folder, checksum, source, int(storage.cache_gb * 1e9))
    if not storage.cache_gb and _lies_in_memory(cache.folder.parent):
        _log.warning(
            "shards are kept in %s, which is memory and counts as the job's: it may be killed for "
            "that; name a disk (--cache-dir, --stage-dir), or bound them with --cache-gb",
            cache.folder.parent,
        )
    home = os.environ.get("HOME")
    in_home = bool(home) and cache.folder.is_relative_to(str(home))
    largest = max(
        (shard.bytes for split in card.splits.values() for shard in split.shards), default=1
    )
    kept_in = f"{cache.folder}{' (in the home folder)' if in_home else ''}"
    return CachedShards(cache, spare=largest, kept_in=kept_in)


def _check_sizes(source: Source, store: CachedShards, card: DatasetCard) -> None:
    shards = [shard for split in card.splits.values() for shard in split.shards]
    missing = [shard for shard in shards if not store.holds(shard)]
    with ThreadPoolExecutor(_ASKING_THREADS) as pool:
        sizes = pool.map(source.size, [shard.name for shard in missing])
        for shard, size in zip(missing, sizes, strict=True):
            if size is not None:
                require_shard_bytes(f"{source.location}/{shard.name}", size, shard)
