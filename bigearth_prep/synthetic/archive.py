"""A whole made-up archive on disk: both sensors and the official tables, in either version."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bigearth_prep.bands import Sensor
from bigearth_prep.card import SPLITS
from bigearth_prep.errors import PrepError
from bigearth_prep.synthetic.patch_files import Layout, PatchFiles, make_s1_patch, make_s2_patch
from bigearth_prep.synthetic.places import MAX_PAIRS, PlannedPair, plan_pairs
from bigearth_prep.synthetic.tables import write_v1_tables, write_v2_tables
from bigearth_prep.synthetic.writers import WriteFile, folder_writer, tar_writer

Advance = Callable[[int], None]
"""Called with the number of patches written since the last call."""

_STAGING_NAME = "archive.partial"


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveConfig:
    """What archive to make up, and where."""

    out: Path
    """Folder to write to; new, or empty."""

    layout: Layout
    """Version of BigEarthNet to follow: folders, names, tables and TIFF headers."""

    pairs: int
    """Patches of each sensor."""

    seed: int
    """Same seed, same bytes."""

    tar: bool = False
    """One tar for each sensor instead of a folder tree."""

    def __post_init__(self) -> None:
        if not 1 <= self.pairs <= MAX_PAIRS:
            raise PrepError(f"cannot make up {self.pairs:,} pairs; ask for 1 to {MAX_PAIRS:,}")
        if self.seed < 0:
            raise PrepError(f"the seed must not be negative, got {self.seed}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveSummary:
    """What was written."""

    s2: Path
    """Root folder, or tar, of the Sentinel-2 patches."""

    s1: Path
    """Root folder, or tar, of the Sentinel-1 patches."""

    tables: tuple[Path, ...]
    pairs: int
    snow: int
    """Pairs flagged as snow."""

    cloud: int
    """Pairs flagged as cloud or shadow."""

    splits: dict[str, int]
    """Pairs in each split, flagged ones included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Half:
    """How one sensor's half of an archive is named and made."""

    root: str
    """Root folder, also inside a tar."""

    tar_name: str
    folder: Callable[[PlannedPair], str]
    """Patch folder below the root."""

    make: Callable[[PlannedPair, Layout, int], PatchFiles]


_HALVES: dict[tuple[Layout, Sensor], _Half] = {
    ("v1", "s2"): _Half(
        root="BigEarthNet-v1.0",
        tar_name="BigEarthNet-S2-v1.0.tar",
        folder=lambda pair: pair.v1_name,
        make=make_s2_patch,
    ),
    ("v1", "s1"): _Half(
        root="BigEarthNet-S1-v1.0",
        tar_name="BigEarthNet-S1-v1.0.tar",
        folder=lambda pair: pair.s1_name,
        make=make_s1_patch,
    ),
    ("v2", "s2"): _Half(
        root="BigEarthNet-S2",
        tar_name="BigEarthNet-S2.tar",
        folder=lambda pair: f"{pair.product}/{pair.v2_name}",
        make=make_s2_patch,
    ),
    ("v2", "s1"): _Half(
        root="BigEarthNet-S1",
        tar_name="BigEarthNet-S1.tar",
        folder=lambda pair: f"{pair.scene.s1_prefix}/{pair.s1_name}",
        make=make_s1_patch,
    ),
}


def write_archive(config: ArchiveConfig, advance: Advance = lambda _: None) -> ArchiveSummary:
    """Make up an archive on disk; where its parts are, and how many pairs it holds.

    Everything is written below one folder in `out` first and moved into place at the end, so that
    an interrupted run leaves nothing that looks like an archive, and may simply be run again.

    Args:
        config: Which archive.
        advance: Told of every patch written, twice for a pair.

    Raises:
        PrepError: `out` is a file, or a folder with something in it.
    """
    staging = _claim_folder(config.out)
    pairs = plan_pairs(config.pairs, config.seed)
    s2, labels = _write_half(config, "s2", pairs, staging, advance)
    s1, _ = _write_half(config, "s1", pairs, staging, advance)
    if config.layout == "v1":
        tables = write_v1_tables(staging, pairs)
    else:
        tables = write_v2_tables(staging, pairs, labels)
    for name in (s2, s1, *tables):
        (staging / name).replace(config.out / name)
    staging.rmdir()
    return ArchiveSummary(
        s2=config.out / s2,
        s1=config.out / s1,
        tables=tuple(config.out / name for name in tables),
        pairs=len(pairs),
        snow=sum(pair.snow for pair in pairs),
        cloud=sum(pair.cloud for pair in pairs),
        splits={split: sum(pair.place.split == split for pair in pairs) for split in SPLITS},
    )


def _claim_folder(out: Path) -> Path:
    """A new folder inside `out` for files on their way; leftovers of an earlier run are removed."""
    if out.exists() and not out.is_dir():
        raise PrepError(f"{out} is a file; name a new or empty folder")
    staging = out / _STAGING_NAME
    found = [path.name for path in out.iterdir() if path != staging] if out.is_dir() else []
    if found:
        raise PrepError(f"{out} holds {min(found)} already; name a new or empty folder")
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir(parents=True)
    return staging


def _write_half(
    config: ArchiveConfig,
    sensor: Sensor,
    pairs: Sequence[PlannedPair],
    staging: Path,
    advance: Advance,
) -> tuple[str, dict[int, tuple[str, ...]]]:
    """Write all patches of one sensor; the name of their folder or tar, and labels by place."""
    half = _HALVES[config.layout, sensor]
    labels = {}
    with _open_writer(config, half, staging) as write:
        for pair in sorted(pairs, key=half.folder):
            patch = half.make(pair, config.layout, config.seed)
            for name, content in patch.files.items():
                write(f"{half.root}/{half.folder(pair)}/{name}", content)
            labels[pair.place.number] = patch.labels
            advance(1)
    return half.tar_name if config.tar else half.root, labels


def _open_writer(
    config: ArchiveConfig, half: _Half, staging: Path
) -> AbstractContextManager[WriteFile]:
    return tar_writer(staging / half.tar_name) if config.tar else folder_writer(staging)
