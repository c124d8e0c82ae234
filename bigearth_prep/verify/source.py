"""A dataset against the archive it was made from: pixels of a few samples, tables of all."""

import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from bigearth_prep.archive import Archive, StorageConfig, drop_scratch, make_readable, scan_archives
from bigearth_prep.card import read_card
from bigearth_prep.cluster import Runner
from bigearth_prep.errors import PrepError
from bigearth_prep.output_folder import OPTIONS_NAME
from bigearth_prep.pairing import TableConfig
from bigearth_prep.patch_source import PatchPlace, place_of
from bigearth_prep.verify.config import draw_samples
from bigearth_prep.verify.source_sample import SourceCheck, SourceFinding, check_source
from bigearth_prep.verify.source_tables import check_source_tables
from bigearth_prep.verify.stored import StoredDataset, open_stored

_SAMPLES_PER_TASK = 16
_KNOWN_ARCHIVES = ("BigEarthNet v1", "BigEarthNet v2")
_TABLES = ("metadata", "mapping", "exclude")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """The archive and the tables that a dataset is compared with."""

    s2: Path
    s1: Path
    tables: TableConfig = field(default_factory=TableConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    samples: int = 1000
    """Samples that are decoded anew, at most; tables are compared with every row."""

    seed: int = 0
    """Which samples those are."""

    def require_files(self) -> None:
        """Nothing, if the archive and every table are there.

        Raises:
            PrepError: one is not.
        """
        roots = [("s2", self.s2), ("s1", self.s1)]
        tables = [(role.partition(" ")[0], path) for role, path in self.tables.files]
        for option, path in roots + tables:
            if not path.exists():
                raise PrepError(
                    f"{path} does not exist; say with --{option} where it is now, and name every "
                    "other file of that option too"
                )


def require_archive(dataset: Path) -> None:
    """Nothing, if the dataset was made from an archive that can be compared with.

    Raises:
        PrepError: it was not.
    """
    archive = read_card(dataset).source.get("archive")
    if archive not in _KNOWN_ARCHIVES:
        known = " and ".join(_KNOWN_ARCHIVES)
        raise PrepError(
            f"--source compares with {known}; {dataset} was made from {archive}: leave it out"
        )


def recorded_places(dataset: Path) -> dict[str, Any]:
    """Where the archive and its tables lay when the dataset was built, by option name.

    Raises:
        PrepError: the dataset does not say.
    """
    path = dataset / OPTIONS_NAME
    try:
        options = tomllib.loads(path.read_text(encoding="utf-8"))
        places: dict[str, Any] = {name: Path(options[name]) for name in ("s2", "s1")}
        places |= {name: tuple(map(Path, options[name])) for name in _TABLES}
        listed = (text.partition("=") for text in options["split"])
        return places | {"split": tuple((split, Path(name)) for split, _, name in listed)}
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise PrepError(
            f"{path} does not say where the archive was ({error!r}); give --s2, --s1 and every "
            "table of the build"
        ) from error


def compare_with_source(
    dataset: Path, config: SourceConfig, run: Runner, *, advance: Callable[[int], None]
) -> SourceFinding:
    """What differs between a dataset and its archive.

    Args:
        dataset: The dataset folder.
        config: The archive, and how many samples are decoded anew.
        run: Runs the decoding.
        advance: Told of samples as they are done, for progress.

    Raises:
        PrepError: the archive or a table cannot be read, or is of another collection.
    """
    require_archive(dataset)
    stored = open_stored(dataset.absolute())
    problems = list(check_source_tables(stored, config.tables))
    archives = scan_archives(config.s2, config.s1, config.storage)
    make_readable(archives)
    chosen = draw_samples(len(stored.manifest), config.samples, config.seed)
    total = SourceFinding(problems=problems)
    checks = _checks(
        stored,
        archives,
        chosen,
        labels_in_json=archives[0].layout == "v1" and not config.tables.metadata,
    )
    # Held back until all are there, so that the order of the problems is that of the samples.
    findings: dict[int, SourceFinding] = {}
    for check, finding in run(check_source, checks):
        findings[check.rows[0]] = finding
        advance(len(check.rows))
    drop_scratch(archives, config.storage)
    return sum((findings[row] for row in sorted(findings)), total)


def _checks(
    stored: StoredDataset,
    archives: tuple[Archive, Archive],
    chosen: Int64[np.ndarray, " chosen"],
    *,
    labels_in_json: bool,
) -> Iterator[SourceCheck]:
    s2, s1 = archives
    rows = stored.manifest.take(chosen)
    s2_places = _places_of(s2, rows.column("key"))
    s1_places = _places_of(s1, rows.column("s1_name"))
    for start in range(0, len(chosen), _SAMPLES_PER_TASK):
        part = slice(start, start + _SAMPLES_PER_TASK)
        yield SourceCheck(
            folder=stored.folder,
            rows=tuple(chosen[part].tolist()),
            s2_places=s2_places[part],
            s1_places=s1_places[part],
            s2_root=s2.root.absolute(),
            s1_root=s1.root.absolute(),
            labels_in_json=labels_in_json,
        )


def _places_of(archive: Archive, names: pa.ChunkedArray) -> list[PatchPlace | None]:
    """Where patches lie; None for those that the archive does not hold."""
    rows = pc.index_in(names.combine_chunks(), value_set=archive.names).to_pylist()
    return [
        None
        if row is None
        else place_of(archive.folders[row].as_py(), archive.members[row].as_py())
        for row in rows
    ]
