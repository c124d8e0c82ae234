"""Which patches an extracted archive holds, and where."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bigearth_prep.bands import Sensor
from bigearth_prep.errors import PrepError

Layout = Literal["v1", "v2", "unknown"]


@dataclass(frozen=True, slots=True)
class ArchiveFolder:
    """One sensor's patches."""

    sensor: Sensor
    root: Path
    layout: Layout
    """v1: one flat level of patches. v2: patches inside products or scenes."""

    patches: dict[str, str]
    """Patch folder relative to the root, by patch name."""


def scan_archive(root: Path, sensor: Sensor) -> ArchiveFolder:
    """The patches of an extracted archive, found by two levels of directory listings.

    Band files are not looked at: a missing one shows when its patch is read.

    Raises:
        PrepError: the path is not a folder, or is not the folder that the archive unpacks to.
    """
    if not root.exists():
        raise PrepError(f"--{sensor} {root} does not exist; give the extracted archive's folder")
    if not root.is_dir():
        raise PrepError(f"--{sensor} {root} is not a folder; extract the archive first")
    layout = _detect_layout(root)
    patches: dict[str, str] = {}
    for folder in _folders(root):
        inner = _folders(Path(folder.path)) if layout == "v2" else iter([folder])
        found = {entry.name: os.path.relpath(entry.path, root) for entry in inner}
        if repeated := found.keys() & patches.keys():
            raise PrepError(f"{root} holds patch {min(repeated)} twice; keep one")
        patches |= found
    _check_prefix(root, sensor, patches)
    return ArchiveFolder(sensor, root, layout, patches)


def _detect_layout(root: Path) -> Layout:
    """Looks inside one folder only: v1 has half a million beside it."""
    for folder in _folders(root):
        with os.scandir(folder.path) as entries:
            first = next(entries, None)
        if first is not None:
            return "v2" if first.is_dir() else "v1"
    return "unknown"


def _folders(root: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(root) as entries:
        yield from (entry for entry in entries if entry.is_dir())


def _check_prefix(root: Path, sensor: Sensor, patches: dict[str, str]) -> None:
    if patches and not any(name.startswith(sensor.upper()) for name in patches):
        raise PrepError(
            f"--{sensor} {root} holds no {sensor.upper()} patch but {min(patches)}; give the "
            f"folder whose {'sub' if sensor == 's1' else ''}folders are {sensor.upper()} patches"
        )
