"""A dataset against the archive it was made from: pixels of a few samples, tables of all."""

import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from bigearth_prep.archive import Archive, StorageConfig, drop_scratch, make_readable, scan_archives
from bigearth_prep.bands import Sensor
from bigearth_prep.cluster import Runner
from bigearth_prep.collection import Collection
from bigearth_prep.errors import PrepError
from bigearth_prep.output_folder import OPTIONS_NAME
from bigearth_prep.pairing import TableConfig
from bigearth_prep.pairs_file import read_pairs_file
from bigearth_prep.patch_source import PatchPlace, place_of
from bigearth_prep.verify.config import draw_samples, first_of
from bigearth_prep.verify.source_listed import (
    ListedCheck,
    check_listed,
    check_pairs_table,
    listed_checks,
)
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
    pairs: Path | None = None
    """The table, where a dataset was made from one; its paths are relative to `s2` and `s1`."""

    collection: Collection | None = None
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
        tables += [("pairs", self.pairs)] if self.pairs else []
        for option, path in roots + tables:
            if not path.exists():
                raise PrepError(
                    f"{path} does not exist; say with --{option} where it is now, and name every "
                    "other file of that option too"
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
        places |= {name: options[name] for name in ("pairs", "collection") if name in options}
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
    stored = open_stored(dataset.absolute())
    _require_source(stored, config)
    problems = list(check_source_tables(stored, config.tables))
    if config.pairs is not None:
        return _compare_with_table(stored, config, run, problems, advance=advance)
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
    total = _in_order(run(check_source, checks), total, advance)
    drop_scratch(archives, config.storage)
    return total


def _require_source(stored: StoredDataset, config: SourceConfig) -> None:
    """Nothing, if the dataset was made from what it is to be compared with."""
    archive = stored.card.source.get("archive")
    known = _KNOWN_ARCHIVES if config.collection is None else (config.collection.name,)
    if archive not in known:
        raise PrepError(
            f"--source compares with {' and '.join(known)}; {stored.folder} was made from {archive}"
        )


def _compare_with_table(
    stored: StoredDataset,
    config: SourceConfig,
    run: Runner,
    problems: list[str],
    *,
    advance: Callable[[int], None],
) -> SourceFinding:
    assert config.pairs is not None
    assert config.collection is not None
    table = read_pairs_file(config.pairs)
    own_split = not config.tables.splits
    said = check_pairs_table(stored, table, own_split=own_split)
    total = SourceFinding(problems=[*problems, *first_of(said, "--pairs")])
    chosen = draw_samples(len(stored.manifest), config.samples, config.seed).tolist()
    groups = [chosen[n : n + _SAMPLES_PER_TASK] for n in range(0, len(chosen), _SAMPLES_PER_TASK)]
    roots: dict[Sensor, Path] = {"s2": config.s2.absolute(), "s1": config.s1.absolute()}
    checks = listed_checks(stored, table, config.collection, roots, groups)
    return _in_order(run(check_listed, checks), total, advance)


def _in_order(
    findings: Iterable[tuple[SourceCheck | ListedCheck, SourceFinding]],
    total: SourceFinding,
    advance: Callable[[int], None],
) -> SourceFinding:
    """All together, held back until all are there, so that problems are in order of samples."""
    found: dict[int, SourceFinding] = {}
    for check, finding in findings:
        found[check.rows[0]] = finding
        advance(len(check.rows))
    return sum((found[row] for row in sorted(found)), total)


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
