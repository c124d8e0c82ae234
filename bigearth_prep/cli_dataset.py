"""Commands that look at a finished dataset: `verify` and `inspect`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bigearth_prep.cli_options import (
    FOLDER,
    cluster_config,
    cluster_options,
    source_options,
)
from bigearth_prep.cli_requests import source_config
from bigearth_prep.errors import PrepError
from bigearth_prep.terminal import (
    VerboseCommand,
    config_option,
    json_option,
    print_json,
    progress_bar,
)

if TYPE_CHECKING:
    from bigearth_prep.card import DatasetCard
    from bigearth_prep.cluster import Runner
    from bigearth_prep.verify.source import SourceConfig
    from bigearth_prep.verify.source_sample import SourceFinding

_LOG_COLUMNS = 160
"""Width of tables that go to a file or a pipe."""

_BYTES_WORTH_A_WORKER = 4e9


@click.command(cls=VerboseCommand)
@click.argument("dataset", type=FOLDER)
@click.option(
    "--sample",
    type=click.IntRange(1),
    help="Read only so many samples of the dataset, drawn by --seed, and hold files against their "
    "size instead of their checksum.  [default: all]",
)
@click.option("--seed", type=int, default=0, help="Which samples --sample and --source take.")
@source_options
@cluster_options
@json_option("the result")
@config_option()
def verify(dataset: Path, **options: Any) -> None:  # noqa: ANN401 (click passes them by name)
    """Check every checksum, count, offset and label of DATASET; exit 1 where anything is off.

    With --source, samples are decoded anew from the archive and compared pixel for pixel, and
    every row of the manifest is compared with the tables.
    """
    from bigearth_prep.card import read_card
    from bigearth_prep.cluster import open_cluster
    from bigearth_prep.verify import VerifyConfig, shard_count, verify_dataset

    card = read_card(dataset)
    shards = shard_count(card)
    config = VerifyConfig(samples=options["sample"], seed=options["seed"])
    source = source_config(dataset, options)
    cluster = cluster_config(options | {"workers": _workers(options, card)})
    with open_cluster(cluster) as run:
        with progress_bar(shards, "shards") as advance:
            problems = verify_dataset(dataset, config, run, advance=advance)
        compared = _compare_with_source(dataset, card, source, run) if source else None
    problems += compared.problems if compared else []
    if options["as_json"]:
        fields = {"dataset": str(dataset), "samples": options["sample"], "problems": problems}
        counts = {"compared": compared.compared, "warped": compared.warped} if compared else None
        print_json(fields | {"source": counts})
    else:
        for problem in problems:
            click.echo(problem)
    if problems:
        raise PrepError(f"{dataset}: {len(problems)} problems; build it again with --overwrite")
    if not options["as_json"]:
        samples = sum(split.samples for split in card.splits.values())
        read = "" if config.reads_all(samples) else f", {options['sample']:,} samples read"
        click.echo(f"{dataset} is whole: {samples:,} samples in {shards:,} shards{read}")
        if compared:
            click.echo(_describe(compared))


def _compare_with_source(
    dataset: Path, card: "DatasetCard", source: "SourceConfig", run: "Runner"
) -> "SourceFinding":
    from bigearth_prep.verify.source import compare_with_source

    samples = sum(part.samples for part in card.splits.values())
    with progress_bar(min(source.samples, samples), "samples decoded anew") as advance:
        return compare_with_source(dataset, source, run, advance=advance)


def _describe(compared: "SourceFinding") -> str:
    warped = f"; {compared.warped:,} more have warped bands, which were not compared"
    return f"{compared.compared:,} samples are, pixel for pixel, as the archive has them" + (
        warped if compared.warped else ""
    )


def _workers(options: dict[str, Any], card: "DatasetCard") -> int | None:
    """As asked for; by default, none for what this process reads before others have started."""
    if options["workers"] is not None or options["sample"] is not None:
        return options["workers"] or 0
    size = sum(file.bytes for part in card.splits.values() for file in part.files)
    return None if size > _BYTES_WORTH_A_WORKER else 0


@click.command(cls=VerboseCommand)
@click.argument("dataset", type=FOLDER)
@click.option("--preview", type=FOLDER, help="Write a contact sheet (PNG).")
@click.option("--html", "page", type=FOLDER, help="Write one self-contained page.")
@click.option("--patches", type=click.IntRange(1), default=12, help="Patches on the sheet.")
@click.option(
    "--sample", type=click.IntRange(1), default=256, help="Samples in the page's histograms."
)
@click.option("--seed", type=int, default=0, help="Which samples --sample takes.")
@json_option("the card")
@config_option()
def inspect(dataset: Path, **options: Any) -> None:  # noqa: ANN401 (click passes them by name)
    """Print the card of DATASET as a table; draw a contact sheet or a page of what it holds."""
    from bigearth_prep.card import read_card

    card = read_card(dataset)
    if options["as_json"]:
        click.echo(card.to_json(), nl=False)
    else:
        _print_card(card)
    if preview := options["preview"]:
        from bigearth_prep.pictures.contact_sheet import write_contact_sheet

        write_contact_sheet(dataset, preview, patches=options["patches"])
        click.echo(f"contact sheet: {preview}", err=True)
    if page := options["page"]:
        from bigearth_prep.pictures.page import PageConfig, write_page

        config = PageConfig(
            histogram_samples=options["sample"],
            sheet_patches=options["patches"],
            seed=options["seed"],
        )
        write_page(dataset, page, config)
        click.echo(f"page: {page}", err=True)


def _print_card(card: "DatasetCard") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = _LOG_COLUMNS
    side, normalization = card.patch.size_px, card.normalization
    console.print(f"{card.created_by}, {card.source['archive']}, patches of {side} x {side} px")
    console.print(f"normalization {normalization.scheme}: {normalization.order}")
    console.print(f"parameters {normalization.source}; resampling {normalization.resampling}")
    bands = Table("band", "sensor", "dtype", "unit", "scale", "offset", "mean", "std")
    for sensor, layout in card.sensors.items():
        for name, scale, offset in zip(layout.bands, layout.scale, layout.offset, strict=True):
            moments = normalization.parameters[name]
            numbers = (scale, offset, moments.mean, moments.std)
            cells = (f"{number:.6g}" for number in numbers)
            bands.add_row(name, sensor, layout.dtype, layout.unit, *cells)
    splits = Table("split", "samples", "shard files", "10^6 bytes")
    for name, part in card.splits.items():
        size = sum(file.bytes for file in part.files) / 1e6
        splits.add_row(name, f"{part.samples:,}", f"{len(part.files):,}", f"{size:,.1f}")
    console.print(bands, splits)
