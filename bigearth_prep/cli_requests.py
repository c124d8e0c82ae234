"""What parsed options of the `bigearth-prep` commands ask for."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bigearth_prep.cli_options import SOURCE_SAMPLES

if TYPE_CHECKING:
    from bigearth_prep.archive import StorageConfig
    from bigearth_prep.pairing import TableConfig
    from bigearth_prep.plan import BuildConfig
    from bigearth_prep.verify.source import SourceConfig

_SOURCE_NAMES = ("s2", "s1", "pairs", "collection", "metadata", "mapping", "split", "exclude")


def build_config(options: Mapping[str, Any], out: Path) -> "BuildConfig":
    """The request that parsed options make; options that a command lacks keep their defaults.

    Raises:
        click.UsageError: two options contradict each other.
        PrepError: a band is unknown.
    """
    from bigearth_prep.bands import select_bands
    from bigearth_prep.collection import BIG_EARTH_NET
    from bigearth_prep.collection_file import open_collection
    from bigearth_prep.plan import BuildConfig

    name = options["collection"]
    collection = open_collection(name) if name else BIG_EARTH_NET
    names = options["bands"]
    s2, s1 = _roots_of(options)
    statistics = options.get("stats")
    if statistics not in {None, "published", "compute"}:
        statistics = Path(statistics)
    try:
        return BuildConfig(
            s2=s2,
            s1=s1,
            pairs=options["pairs"],
            collection=collection,
            tables=_table_config(options),
            bands=select_bands(names.split(","), collection.bands) if names else collection.bands,
            scheme=options.get("normalize", "paper"),
            statistics=statistics,
            dtype=options.get("dtype"),
            size_px=options.get("size"),
            resampling=options.get("resampling"),
            align=options["align"],
            shard_format=options.get("format", "webdataset"),
            shard_mb=options.get("shard_mb", 256.0),
            fail_on_bad=options.get("on_bad") == "fail",
            storage=_storage_config(options, out),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _table_config(options: Mapping[str, Any]) -> "TableConfig":
    from bigearth_prep.pairing import TableConfig

    return TableConfig(
        metadata=options["metadata"],
        mapping=options["mapping"],
        splits=options["split"],
        exclude=options["exclude"],
        split_ratio=options["split_ratio"],
        seed=options["seed"],
    )


def _roots_of(options: Mapping[str, Any]) -> tuple[Path, Path]:
    """The archives, or what a table's paths are relative to: by default its own folder."""
    if options["pairs"] is not None:
        folder = options["pairs"].parent
        return options["s2"] or folder, options["s1"] or folder
    if options["s2"] is None or options["s1"] is None:
        raise click.UsageError("give --s2 and --s1 for BigEarthNet, or --pairs and --collection")
    return options["s2"], options["s1"]


def source_config(dataset: Path, options: Mapping[str, Any]) -> "SourceConfig | None":
    """The archive that parsed options want the dataset compared with, if they do.

    Raises:
        PrepError: neither the options nor the dataset say where it lies.
    """
    from bigearth_prep.collection_file import open_collection
    from bigearth_prep.pairing import TableConfig
    from bigearth_prep.verify.source import SourceConfig, recorded_places

    given = {name: options[name] for name in _SOURCE_NAMES if options[name]}
    if not (options["source"] or given):
        return None
    places = {name: options[name] for name in _SOURCE_NAMES}
    if options["source"]:
        places = recorded_places(dataset) | given
    if lacking := [f"--{name}" for name in ("s2", "s1") if not places[name]]:
        raise click.UsageError(f"{' and '.join(lacking)} is not given; add it, or --source")
    s2, s1 = Path(places.pop("s2")), Path(places.pop("s1"))
    pairs, collection = places.pop("pairs", None), places.pop("collection", None)
    config = SourceConfig(
        s2=s2,
        s1=s1,
        tables=TableConfig(splits=places.pop("split"), **places),
        storage=_storage_config(options, dataset),
        pairs=Path(pairs) if pairs else None,
        collection=open_collection(collection) if collection else None,
        samples=options["sample"] or SOURCE_SAMPLES,
        seed=options["seed"],
    )
    config.require_files()
    return config


def _storage_config(options: Mapping[str, Any], dataset: Path) -> "StorageConfig":
    from bigearth_prep.archive import StorageConfig

    return StorageConfig(
        cache=options["cache"],
        scratch=options["scratch"] or dataset.with_name(f"{dataset.name}.scratch"),
        keep_scratch=options["keep_scratch"],
    )
