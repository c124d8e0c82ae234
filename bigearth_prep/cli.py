"""The command `bigearth-prep`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bigearth_prep import __version__
from bigearth_prep.cli_dataset import inspect, verify
from bigearth_prep.cli_options import (
    FOLDER,
    archive_options,
    cluster_config,
    storage_options,
)
from bigearth_prep.cli_pairs import list_pairs
from bigearth_prep.cli_requests import build_config
from bigearth_prep.errors import PrepError
from bigearth_prep.terminal import (
    VerboseCommand,
    config_option,
    counts_line,
    json_option,
    print_json,
    progress_bar,
    run_group,
    set_verbosity,
)

if TYPE_CHECKING:
    from bigearth_prep.plan import BuildPlan
    from bigearth_prep.statistics import BandTables


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="bigearth-prep")
@click.option("-v", "--verbose", count=True, help="Log more; -vv adds tracebacks.")
def commands(verbose: int) -> None:
    """BigEarthNet archives to paired, aligned, normalized training shards."""
    set_verbosity(verbose)


def main() -> None:
    """Run the command line."""
    run_group(commands, (PrepError,))


commands.command_class = VerboseCommand


@commands.command("make-archive")
@click.argument("out", type=FOLDER)
@click.option("--layout", type=click.Choice(["v1", "v2"]), default="v2", help="Archive version.")
@click.option("--pairs", type=click.IntRange(1), default=1000, help="Pairs of patches.")
@click.option("--seed", type=int, default=0, help="Same seed, same bytes.")
@click.option("--tar", is_flag=True, help="Write tars as published, instead of folders.")
@json_option("the result")
@config_option()
def make_archive(*, as_json: bool, **settings: Any) -> None:  # noqa: ANN401 (click passes them)
    """Write a made-up archive in BigEarthNet's on-disk layout to OUT."""
    from bigearth_prep.synthetic.archive import ArchiveConfig, write_archive

    config = ArchiveConfig(**settings)
    with progress_bar(2 * config.pairs, "patches") as advance:
        summary = write_archive(config, advance)
    if as_json:
        print_json(json.loads(json.dumps(asdict(summary), default=str)))
        return
    click.echo(f"{config.pairs:,} pairs in {summary.s2} and {summary.s1}")
    for table in summary.tables:
        click.echo(f"table {table}")


@commands.command("build-shards")
@click.option("--out", type=FOLDER, required=True, help="Dataset folder to write.")
@archive_options
@storage_options
@click.option(
    "--on-bad",
    type=click.Choice(["skip", "fail"]),
    default="skip",
    help="Bad pairs become rows of rejected.parquet, or end the build.",
)
@click.option(
    "--resume/--no-resume", default=True, help="Go on with an unfinished build, or refuse it."
)
@click.option("--overwrite", is_flag=True, help="Replace a dataset built from another request.")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--report", type=FOLDER, help="Write Dask's performance report (HTML).")
@json_option("the result")
@config_option()
def build_shards(out: Path, **options: Any) -> None:  # noqa: ANN401 (click passes them by name)
    """Pair, align, normalize and label an archive, and write it as training shards.

    The archive is BigEarthNet (--s2, --s1) or, by a table, any collection (--pairs, --collection).
    """
    from bigearth_prep.pipeline import build_dataset
    from bigearth_prep.plan import plan_build

    config = build_config(options, out)
    if options["dry_run"]:
        _print_plan(plan_build(config), as_json=options["as_json"])
        return
    summary = build_dataset(
        config,
        out,
        cluster_config(options),
        resume=options["resume"],
        overwrite=options["overwrite"],
    )
    samples = {split: part.samples for split, part in summary.card.splits.items()}
    if options["as_json"]:
        result = {"samples": samples, "rejected": summary.rejected, "files": summary.files_read}
        print_json({"dataset": str(out), **result})
        return
    state = "was complete already" if summary.was_complete else "is complete"
    click.echo(f"{out} {state}: {counts_line(samples.items())}")
    click.echo(f"rejected: {counts_line(summary.rejected.items())}")


@commands.command()
@click.argument("dataset", type=FOLDER, required=False)
@click.option("--out", type=FOLDER, help="JSON file to write; needed for an archive.")
@click.option("--plot", type=FOLDER, help="Write a picture of the bands' spread (PNG).")
@click.option(
    "--sample",
    type=click.IntRange(1),
    help="Count only so many samples of each split of DATASET, or pairs of the archive's train "
    "split, drawn by --seed; the result says so.  [default: all]",
)
@json_option("the result")
@archive_options
@config_option()
def stats(dataset: Path | None, **options: Any) -> None:  # noqa: ANN401 (click passes them by name)
    """Per-band statistics of DATASET's splits, or of an archive's train split.

    Those of an archive (--s2, --s1, or --pairs) serve `build-shards --stats FILE`.
    """
    is_archive = (options["s2"] and options["s1"]) or options["pairs"]
    if bool(is_archive) == (dataset is not None) or (is_archive and options["out"] is None):
        raise click.UsageError("give either DATASET, or --s2, --s1 (or --pairs) and --out")
    if dataset is not None:
        units, splits, fields = _dataset_stats(dataset, options)
    else:
        units, splits, fields = _archive_stats(options)
    if options["plot"]:
        from bigearth_prep.pictures.statistics_figure import write_statistics_figure

        write_statistics_figure(splits, units, options["plot"])
    if options["as_json"]:
        print_json(fields)
        return
    for split, bands in splits.items():
        for name, band in bands.items():
            moments = f"mean {band.mean:.6g}, std {band.std:.6g}"
            click.echo(f"{split} {name}: {moments}, {band.count:,} px")


BandUnits = dict[str, tuple[str, ...]]
"""Names of bands by their unit."""


def _dataset_stats(
    dataset: Path, options: dict[str, Any]
) -> tuple[BandUnits, "BandTables", dict[str, Any]]:
    from bigearth_prep.card import read_card
    from bigearth_prep.cluster import open_cluster
    from bigearth_prep.dataset_statistics import dataset_statistics
    from bigearth_prep.whole_file import write_text

    with open_cluster(cluster_config(options)) as run:
        found = dataset_statistics(
            dataset, run, samples_per_split=options["sample"], seed=options["seed"]
        )
    fields = asdict(found)
    if options["out"]:
        write_text(options["out"], json.dumps(fields, indent=2) + "\n")
    if found.is_sampled:
        click.echo(f"sampled: {counts_line(found.samples.items())}", err=True)
    units = {one.unit: one.bands for one in read_card(dataset).sensors.values()}
    return units, found.splits, fields


def _archive_stats(options: dict[str, Any]) -> tuple[BandUnits, "BandTables", dict[str, Any]]:
    from bigearth_prep.pipeline import archive_statistics

    config = build_config(options, options["out"])
    table = archive_statistics(
        config, options["out"], cluster_config(options), sampled_pairs=options["sample"]
    )
    click.echo(table.source, err=True)
    units = {
        unit: tuple(band.name for band in config.bands if band.unit == unit)
        for unit in dict.fromkeys(band.unit for band in config.bands)
    }
    return units, {"train": table.bands}, asdict(table)


def _print_plan(plan: "BuildPlan", *, as_json: bool) -> None:
    """The plan on standard output; exit 1 where nothing would be stored."""
    splits, rejected = plan.counts_by_split(), plan.counts_by_reason()
    if as_json:
        print_json({"pairs": splits, "shards": len(plan.shards), "rejected": rejected})
    else:
        click.echo(f"plan: {counts_line(splits.items())} in {len(plan.shards):,} shards")
        click.echo(f"left out: {counts_line(rejected.items())}")
    if not plan.shards:
        raise PrepError("no pair is left to store; check the archives and the tables")


for command in (verify, inspect, list_pairs):
    commands.add_command(command)
