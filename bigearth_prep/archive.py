"""Which patches an archive holds, and where: in folders, in a tar, or in a compressed tar."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from bigearth_prep.bands import Sensor
from bigearth_prep.decompress import (
    COMPRESSED_SUFFIXES,
    drop_unpacked,
    is_compressed,
    unpack,
    unpacked_path,
)
from bigearth_prep.errors import PrepError
from bigearth_prep.patch_source import PatchPlace, place_of
from bigearth_prep.tar_index import MEMBERS_TYPE, index_tar, is_indexed, load_index, save_index

Layout = Literal["v1", "v2", "unknown"]

_UNPACKED: dict[Sensor, str] = {
    "s2": "BigEarthNet-S2 (v2) or BigEarthNet-v1.0 (v1)",
    "s1": "BigEarthNet-S1 (v2) or BigEarthNet-S1-v1.0 (v1)",
}
_PLACES_PER_STEP = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageConfig:
    """Where a build may keep what makes it fast; it never changes what is built."""

    cache: Path | None = None
    """Folder for the indices of tars; by default each beside its tar."""

    scratch: Path = Path("bigearth-prep.scratch")
    """Folder in which compressed archives become plain tars."""

    keep_scratch: bool = False
    """Leave those tars there when all is done."""


@dataclass(frozen=True, slots=True)
class Archive:
    """One sensor's patches."""

    sensor: Sensor
    source: Path
    """The folder or file that was given."""

    root: Path
    """The folder or plain tar that is read."""

    layout: Layout
    """v1: one flat level of patches. v2: patches inside products or scenes."""

    names: pa.Array
    """Of all patches; arrays, because half a million Python strings take three times as much."""

    folders: pa.Array
    """Each patch's folder relative to the root."""

    members: pa.Array
    """Places of each patch's files in the tar; nulls in a folder."""

    @property
    def patches(self) -> dict[str, str]:
        """Patch folder relative to the root, by patch name."""
        return dict(zip(self.names.to_pylist(), self.folders.to_pylist(), strict=True))

    def rows_of(self, folders: pa.ChunkedArray) -> pa.Array:
        """Which row is of which of these folders."""
        return pc.index_in(folders.combine_chunks(), value_set=self.folders)

    def places(self) -> Iterator[PatchPlace]:
        """Where each patch lies, in order."""
        for start in range(0, len(self.folders), _PLACES_PER_STEP):
            folders = self.folders.slice(start, _PLACES_PER_STEP).to_pylist()
            members = self.members.slice(start, _PLACES_PER_STEP).to_pylist()
            for folder, rows in zip(folders, members, strict=True):
                yield place_of(folder, rows)


def scan_archives(s2: Path, s1: Path, storage: StorageConfig) -> tuple[Archive, Archive]:
    """Both sensors' patches; what must be decompressed to know them is, room permitting.

    Raises:
        PrepError: as `scan_archive` and `unpack` do.
    """
    packed = [source for source in (s2, s1) if is_compressed(source) and source.exists()]
    unpack([source for source in packed if not is_indexed(source, storage.cache)], storage.scratch)
    return scan_archive(s2, "s2", storage), scan_archive(s1, "s1", storage)


def scan_archive(source: Path, sensor: Sensor, storage: StorageConfig = StorageConfig()) -> Archive:
    """The patches of a folder, found by listings, or of a tar, found by its index.

    Files are not looked into: a missing one shows when its patch is read.

    Raises:
        PrepError: there is no archive at this path, or it is another sensor's, or broken.
    """
    if not source.exists():
        raise PrepError(f"--{sensor} {source} does not exist; give the archive's folder or tar")
    if source.is_dir():
        archive = _scan_folder(source, sensor)
    elif source.name.endswith((".tar", *COMPRESSED_SUFFIXES)):
        archive = _scan_tar(source, sensor, storage)
    else:
        forms = ", ".join((".tar", *COMPRESSED_SUFFIXES))
        raise PrepError(f"--{sensor} {source} is neither a folder nor named {forms}")
    _check_names(source, sensor, archive)
    return archive


def make_readable(archives: Sequence[Archive]) -> None:
    """Decompress what is compressed and known from its index only.

    Raises:
        PrepError: as `unpack` does.
    """
    packed = [archive for archive in archives if is_compressed(archive.source)]
    if packed:
        unpack([archive.source for archive in packed], packed[0].root.parent)


def drop_scratch(archives: Sequence[Archive], storage: StorageConfig) -> None:
    """Remove the tars that archives were decompressed to, unless they are to be kept."""
    sources = [archive.source for archive in archives if is_compressed(archive.source)]
    if sources and not storage.keep_scratch:
        drop_unpacked(sources, storage.scratch)


def _scan_tar(source: Path, sensor: Sensor, storage: StorageConfig) -> Archive:
    root = unpacked_path(source, storage.scratch) if is_compressed(source) else source
    index = load_index(source, storage.cache)
    if index is None:
        index = index_tar(root)
        save_index(index, source, storage.cache)
    whole: list[str] = index.column("folder").to_pylist()
    layout = _layout_of(whole[0]) if whole else "unknown"
    depth = 2 if layout == "v2" else 1
    names = pa.array((folder.rpartition("/")[2] for folder in whole), pa.string())
    inner = pa.array(
        ("/".join(folder.rsplit("/", depth)[-depth:]) for folder in whole), pa.string()
    )
    members = index.column("members").combine_chunks()
    return Archive(sensor, source, root, layout, names, inner, members)


def _layout_of(folder: str) -> Layout:
    """The folder above a v2 patch is its product or scene, with which its name begins."""
    *_, above, name = ("", *folder.split("/"))
    return "v2" if above and name.startswith(above) else "v1"


def _scan_folder(root: Path, sensor: Sensor) -> Archive:
    layout = _detect_layout(root)
    names: list[str] = []
    folders: list[str] = []
    for folder in _folders(root):
        inner = _folders(Path(folder.path)) if layout == "v2" else iter([folder])
        for entry in inner:
            names.append(entry.name)
            folders.append(os.path.relpath(entry.path, root))
    columns = pa.array(names, pa.string()), pa.array(folders, pa.string())
    return Archive(sensor, root, root, layout, *columns, pa.nulls(len(names), MEMBERS_TYPE))


def _detect_layout(root: Path) -> Layout:
    """Looks inside one folder only: v1 has half a million beside it."""
    for folder in _folders(root):
        with os.scandir(folder.path) as entries:
            are_folders = [entry.is_dir() for entry in entries]
        if are_folders:
            return "v2" if any(are_folders) else "v1"
    return "unknown"


def _folders(root: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(root) as entries:
        yield from (entry for entry in entries if entry.is_dir())


def _check_names(source: Path, sensor: Sensor, archive: Archive) -> None:
    """Refuses a patch twice, a folder one level too high or too low, or of the other sensor."""
    names = archive.names
    if pc.count_distinct(names).as_py() < len(names):
        counts = pc.value_counts(names)
        repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
        raise PrepError(f"{source} holds patch {pc.min(repeated)} twice; keep one")
    is_own = pc.starts_with(names, sensor.upper())
    strange = archive.folders.filter(pc.invert(is_own)).slice(0, 1).to_pylist()
    if not strange and len(names) and archive.layout == "v2" and source.is_dir():
        folder = archive.folders[0].as_py()
        strange = [folder] if any(_folders(source / folder)) else []
    if strange:
        raise PrepError(
            f"--{sensor} {source} holds {strange[0]}, which is no {sensor.upper()} patch; "
            f"give the folder that the archive unpacks to, such as {_UNPACKED[sensor]}"
        )
