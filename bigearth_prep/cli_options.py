"""Groups of options of the `bigearth-prep` commands, and where they want the work done."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bigearth_prep.terminal import Command, with_options

if TYPE_CHECKING:
    from bigearth_prep.cluster import ClusterConfig

SOURCE_SAMPLES = 1000
"""Samples that `verify --source` decodes, unless told otherwise."""

FOLDER = click.Path(path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_CLUSTER_OPTIONS = (
    click.option(
        "--workers",
        type=click.IntRange(0),
        help="Local processes; 0: none but this. With --slurm: over all jobs. "
        "[default: one per core; those of one job]",
    ),
    click.option("--scheduler", help="Address of a running Dask scheduler."),
    click.option("--scheduler-file", type=FILE, help="File with a Dask scheduler's address."),
    click.option("--slurm", is_flag=True, help="Start the workers as Slurm jobs."),
    click.option(
        "--slurm-config",
        type=FILE,
        help="TOML file of what such a job asks for; goes with --slurm.",
    ),
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
    return with_options(command, *options)


def cluster_options(command: Command) -> Command:
    """Options that say where the work runs."""
    return with_options(command, *_CLUSTER_OPTIONS)


def source_options(command: Command) -> Command:
    """Options that name the archive that a dataset is compared with."""
    options = (
        click.option(
            "--source",
            is_flag=True,
            help="Compare with the archive and the tables too, where the build found them; the "
            f"options below name other places. --sample samples are decoded, or {SOURCE_SAMPLES}.",
        ),
        click.option("--s2", type=FOLDER, help=f"Sentinel-2 archive: {_FORMS}."),
        click.option("--s1", type=FOLDER, help=f"Sentinel-1 archive: {_FORMS}."),
        click.option("--pairs", type=FILE, help="Table of pairs, for a dataset made from one."),
        COLLECTION_OPTION,
        *_TABLE_OPTIONS,
        *_INDEX_OPTIONS,
    )
    return with_options(command, *options)


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
            help="published, compute (from the train split), a file of `stats`, or a dataset.json "
            "to normalize as that dataset; by default published, and compute for percentile and "
            "with --pairs.",
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
    return with_options(command, *options)


def cluster_config(options: Mapping[str, Any]) -> "ClusterConfig":
    """Where parsed options want the work done.

    Raises:
        click.UsageError: two options contradict each other.
    """
    from bigearth_prep.cluster import ClusterConfig
    from bigearth_prep.slurm import SlurmConfig, read_slurm_config

    slurm_file = options["slurm_config"]
    if slurm_file and not options["slurm"]:
        raise click.UsageError("--slurm-config goes with --slurm; add it")
    try:
        slurm = read_slurm_config(slurm_file) if slurm_file else SlurmConfig()
        return ClusterConfig(
            workers=options["workers"],
            scheduler=options["scheduler"],
            scheduler_file=options["scheduler_file"],
            slurm=slurm if options["slurm"] else None,
            report=options.get("report"),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
