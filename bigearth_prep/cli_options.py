"""Groups of options of the `bigearth-prep` commands, and the requests they make."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bigearth_prep.archive import StorageConfig
    from bigearth_prep.cluster import ClusterConfig
    from bigearth_prep.plan import BuildConfig
    from bigearth_prep.verify.source import SourceConfig

_SOURCE_NAMES = ("s2", "s1", "metadata", "mapping", "split", "exclude")
_SOURCE_SAMPLES = 1000

FOLDER = click.Path(path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

Command = Callable[..., None]

_CLUSTER_OPTIONS = (
    click.option(
        "--workers",
        type=click.IntRange(0),
        help="Local processes; 0: none but this. [default: one per core]",
    ),
    click.option("--scheduler", help="Address of a running Dask scheduler."),
    click.option("--scheduler-file", type=FILE, help="File with a Dask scheduler's address."),
)

COLLECTION_OPTION = click.option(
    "--collection",
    metavar="NAME|FILE",
    help="What the files of --pairs hold: a TOML file, or one that comes along: ssl4eo-s12, "
    "ssl4eo-s12-l2a.",
)

_FORMS = "extracted folder, .tar, .tar.zst or .tar.gz"


def _pair_of_text(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> Any:  # noqa: ANN401
    """`NAME=FILE` options as (split, path); `val` is a common name of the validation split."""
    pairs = []
    for value in values:
        name, separator, path = value.partition("=")
        if not separator or not Path(path).is_file():
            raise click.BadParameter(f"{value!r} is not NAME=FILE with an existing file")
        pairs.append(("validation" if name == "val" else name, Path(path)))
    return tuple(pairs)


def _ratio_of_text(_: click.Context, __: click.Parameter, value: str) -> tuple[float, float, float]:
    try:
        train, validation, test = (float(share) for share in value.split(","))
    except ValueError as error:
        raise click.BadParameter("give three shares, such as 0.8,0.1,0.1") from error
    return train, validation, test


_TABLE_OPTIONS = (
    click.option("--metadata", type=FILE, multiple=True, help="v2 metadata parquet."),
    click.option("--mapping", type=FILE, multiple=True, help="v1 CSV of S1 and S2 names."),
    click.option(
        "--split",
        multiple=True,
        callback=_pair_of_text,
        metavar="NAME=FILE",
        help="List of the S2 patches of a split (train, validation, test).",
    ),
    click.option("--exclude", type=FILE, multiple=True, help="List of S2 patches to leave out."),
)

_INDEX_OPTIONS = (
    click.option("--cache", type=FOLDER, help="For the indices of tars. [default: beside them]"),
    click.option(
        "--scratch",
        type=FOLDER,
        help="Where compressed archives become plain tars; the workers must see it. "
        "[default: beside the dataset]",
    ),
    click.option("--keep-scratch", is_flag=True, help="Leave those tars there in the end."),
)


def archive_options(command: Command) -> Command:
    """Options that name the archive and its tables, and where the work runs."""
    options = (
        click.option("--s2", type=FOLDER, help=f"Sentinel-2 archive: {_FORMS}."),
        click.option("--s1", type=FOLDER, help=f"Sentinel-1 archive: {_FORMS}."),
        click.option(
            "--pairs",
            type=FILE,
            help="Table (CSV, Parquet) of the pairs of any collection, in place of the archives; "
            "its paths are relative to --s2 and --s1, or to its own folder.",
        ),
        COLLECTION_OPTION,
        *_TABLE_OPTIONS,
        click.option(
            "--split-ratio",
            default="0.8,0.1,0.1",
            callback=_ratio_of_text,
            help="Shares by location, where no split is given.",
        ),
        click.option("--seed", type=int, default=0, help="Of the order, and of a split by ratio."),
        click.option(
            "--bands",
            help="Bands to store (B02,VV), in this order within each sensor.  [default: all]",
        ),
        click.option(
            "--align",
            type=click.Choice(["same", "warp"]),
            default="same",
            help="Pairs whose bands do not share a grid: left out, or warped onto that of the "
            "finest Sentinel-2 band.",
        ),
        *_INDEX_OPTIONS,
        *_CLUSTER_OPTIONS,
    )
    return _with_options(command, options)


def cluster_options(command: Command) -> Command:
    """Options that say where the work runs."""
    return _with_options(command, _CLUSTER_OPTIONS)


def source_options(command: Command) -> Command:
    """Options that name the archive that a dataset is compared with."""
    options = (
        click.option(
            "--source",
            is_flag=True,
            help="Compare with the archive and the tables too, where the build found them; the "
            f"options below name other places. --sample samples are decoded, or {_SOURCE_SAMPLES}.",
        ),
        click.option("--s2", type=FOLDER, help=f"Sentinel-2 archive: {_FORMS}."),
        click.option("--s1", type=FOLDER, help=f"Sentinel-1 archive: {_FORMS}."),
        *_TABLE_OPTIONS,
        *_INDEX_OPTIONS,
    )
    return _with_options(command, options)


def storage_options(command: Command) -> Command:
    """Options that say what is stored of each pair, and in which files."""
    options = (
        click.option(
            "--normalize",
            type=click.Choice(["paper", "zscore", "percentile", "none"]),
            default="paper",
            help="paper: published 8-bit form; none: native reflectance and dB.",
        ),
        click.option(
            "--stats",
            help="published, compute (from the train split) or a JSON file; "
            "by default published, and compute for percentile and with --pairs.",
        ),
        click.option("--dtype", help="Stored type, where the scheme leaves a choice."),
        click.option(
            "--size",
            type=int,
            help="Side in pixels: 120 or 128; with --pairs, 8 to 512.  [default: the collection's]",
        ),
        click.option(
            "--resampling",
            type=click.Choice(["nearest", "bilinear", "cubic"]),
            help="How bands come to --size; by default cubic for paper, nearest at the "
            "collection's own side, else bilinear.",
        ),
        click.option(
            "--format",
            type=click.Choice(["webdataset", "zarr", "both"]),
            default="webdataset",
            help="Tars, one Zarr group per split, or both with the same values.",
        ),
        click.option("--shard-mb", type=float, default=256.0, help="Largest shard, in 10^6 bytes."),
    )
    return _with_options(command, options)


def _with_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def build_config(options: Mapping[str, Any], out: Path) -> "BuildConfig":
    """The request that parsed options make; options that a command lacks keep their defaults.

    Raises:
        click.UsageError: two options contradict each other.
        PrepError: a band is unknown.
    """
    from bigearth_prep.bands import select_bands
    from bigearth_prep.collection import BIG_EARTH_NET
    from bigearth_prep.collection_file import open_collection
    from bigearth_prep.pairing import TableConfig
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
            tables=TableConfig(
                metadata=options["metadata"],
                mapping=options["mapping"],
                splits=options["split"],
                exclude=options["exclude"],
                split_ratio=options["split_ratio"],
                seed=options["seed"],
            ),
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
    from bigearth_prep.pairing import TableConfig
    from bigearth_prep.verify.source import SourceConfig, recorded_places, require_archive

    given = {name: options[name] for name in _SOURCE_NAMES if options[name]}
    if not (options["source"] or given):
        return None
    require_archive(dataset)
    places = {name: options[name] for name in _SOURCE_NAMES}
    if options["source"]:
        places = recorded_places(dataset) | given
    if lacking := [f"--{name}" for name in ("s2", "s1") if not places[name]]:
        raise click.UsageError(f"{' and '.join(lacking)} is not given; add it, or --source")
    s2, s1 = Path(places.pop("s2")), Path(places.pop("s1"))
    config = SourceConfig(
        s2=s2,
        s1=s1,
        tables=TableConfig(splits=places.pop("split"), **places),
        storage=_storage_config(options, dataset),
        samples=options["sample"] or _SOURCE_SAMPLES,
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


def cluster_config(options: Mapping[str, Any]) -> "ClusterConfig":
    """Where parsed options want the work done.

    Raises:
        click.UsageError: two options contradict each other.
    """
    from bigearth_prep.cluster import ClusterConfig

    try:
        return ClusterConfig(
            workers=options["workers"],
            scheduler=options["scheduler"],
            scheduler_file=options["scheduler_file"],
            report=options.get("report"),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
