"""Small made-up archives for tests, and builds of them in this process."""

import shutil
from pathlib import Path
from typing import Literal

from bigearth_prep.cluster import ClusterConfig, open_cluster
from bigearth_prep.pairing import TableConfig
from bigearth_prep.pipeline import BuildSummary, build_dataset
from bigearth_prep.plan import BuildConfig
from bigearth_prep.synthetic.archive import ArchiveConfig, write_archive
from bigearth_prep.verify import VerifyConfig, verify_dataset

Layout = Literal["v1", "v2"]


def make_archive(folder: Path, layout: Layout, pairs: int = 16) -> Path:
    """A made-up archive in a new folder; the same for the same layout and number of pairs."""
    write_archive(ArchiveConfig(out=folder, layout=layout, pairs=pairs, seed=5))
    return folder


def copy_archive(archive: Path, folder: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(archive, folder)
    return folder


def request(archive: Path, **changes: object) -> BuildConfig:
    """A build of everything in a made-up archive, small shards, v2 through its own tables."""
    v2 = (archive / "BigEarthNet-S2").exists()
    roots = (
        ("BigEarthNet-S2", "BigEarthNet-S1") if v2 else ("BigEarthNet-v1.0", "BigEarthNet-S1-v1.0")
    )
    tables = TableConfig(metadata=tuple(sorted(archive.glob("metadata*.parquet"))) if v2 else ())
    fields: dict[str, object] = {
        "s2": archive / roots[0],
        "s1": archive / roots[1],
        "tables": tables,
        "shard_mb": 1.0,
    }
    return BuildConfig(**(fields | changes))  # type: ignore[arg-type]


def build(archive: Path, out: Path, *, overwrite: bool = False, **changes: object) -> BuildSummary:
    """Build in this process, without Dask."""
    return build_dataset(
        request(archive, **changes), out, ClusterConfig(workers=0), overwrite=overwrite
    )


def tree_bytes(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def problems_of(dataset: Path, samples: int | None = None, *, seed: int = 0) -> list[str]:
    """What `verify` finds in this process."""
    config = VerifyConfig(samples=samples, seed=seed)
    with open_cluster(ClusterConfig(workers=0)) as run:
        return verify_dataset(dataset, config, run, advance=lambda _: None)
