"""Which patches an extracted archive holds, and where."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bigearth_prep.bands import Sensor
from bigearth_prep.errors import PrepError

Layout = Literal["v1", "v2", "unknown"]

_UNPACKED: dict[Sensor, str] = {
    "s2": "BigEarthNet-S2 (v2) or BigEarthNet-v1.0 (v1)",
    "s1": "BigEarthNet-S1 (v2) or BigEarthNet-S1-v1.0 (v1)",
}


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
    _check_names(root, sensor, layout, patches)
    return ArchiveFolder(sensor, root, layout, patches)


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


def _check_names(root: Path, sensor: Sensor, layout: Layout, patches: dict[str, str]) -> None:
    """Refuses a folder one level too high or too low, or of the other sensor."""
    strange = next((name for name in patches if not name.startswith(sensor.upper())), None)
    if strange is None and patches and layout == "v2":
        name, folder = next(iter(patches.items()))
        strange = name if any(_folders(root / folder)) else None
    if strange is not None:
        raise PrepError(
            f"--{sensor} {root} holds {patches[strange]}, which is no {sensor.upper()} patch; give "
            f"the folder that the archive unpacks to, such as {_UNPACKED[sensor]}"
        )
