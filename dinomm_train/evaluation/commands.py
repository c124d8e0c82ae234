"""The commands that use a pretrained network: `evaluate`, `embed` and `export`."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from bigearth_prep.terminal import config_option, print_json
from dinomm_train.config import DeviceChoice
from dinomm_train.config_text import resolve_config
from dinomm_train.errors import TrainError
from dinomm_train.evaluation.config import (
    PROTOCOLS,
    RANDOM,
    SENSOR_SETS,
    EvaluationConfig,
    ExtractionConfig,
    NetworkChoice,
    Protocol,
    SensorSet,
)

Command = Callable[..., Any]

_DATASET = click.Path(exists=True, file_okay=False, path_type=Path)


def _existing_checkpoint(_: click.Context, __: click.Parameter, value: str) -> str:
    if value != RANDOM and not Path(value).exists():
        raise click.BadParameter(
            f"{value!r} does not exist; name a run folder, a checkpoint, an export, the published "
            f"weights, or {RANDOM!r}"
        )
    return value


def _path_ending(suffix: str) -> Callable[[click.Context, click.Parameter, Path], Path]:
    def check(_: click.Context, __: click.Parameter, path: Path) -> Path:
        if path.suffix != suffix:
            raise click.BadParameter(f"{path} must end in {suffix}")
        return path

    return check


def _network_options(command: Command) -> Command:
    """Options of a command that takes a `network`."""

    @functools.wraps(command)
    def with_network(
        *,
        checkpoint: str,
        architecture: Path | None,
        assignments: tuple[str, ...],
        seed: int,
        **others: Any,  # noqa: ANN401 - click passes the rest by name
    ) -> Any:  # noqa: ANN401
        if checkpoint != RANDOM and (architecture or assignments):
            raise click.UsageError(f"{checkpoint} has its own network; the options shape `random`")
        try:
            config = resolve_config("fixed", architecture, assignments)
        except TrainError as error:
            raise click.UsageError(str(error)) from error
        choice = NetworkChoice(checkpoint=checkpoint, untrained=config, seed=seed)
        return command(network=choice, **others)

    return _with_options(
        with_network,
        click.argument("checkpoint", callback=_existing_checkpoint),
        click.option(
            "--architecture",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Training configuration whose network `random` is, such as a run's config.toml.",
        ),
        click.option(
            "--set",
            "assignments",
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            help="One of its settings, such as model.depth=6. May be repeated.",
        ),
        click.option("--seed", type=click.IntRange(min=0), default=0, help="Of untrained weights."),
    )


def _extraction_options(command: Command) -> Command:
    """Options of a command that takes an `extraction`."""

    @functools.wraps(command)
    def with_extraction(
        *,
        sensors: tuple[SensorSet, ...],
        batch_size: int,
        crop_px: int,
        input_px: int,
        device: DeviceChoice,
        **others: Any,  # noqa: ANN401 - click passes the rest by name
    ) -> Any:  # noqa: ANN401
        extraction = ExtractionConfig(
            sensor_sets=tuple(dict.fromkeys(sensors)),
            batch_size=batch_size,
            crop_px=crop_px,
            input_px=input_px,
            device=device,
        )
        return command(extraction=extraction, **others)

    return _with_options(
        with_extraction,
        click.option(
            "--sensors",
            multiple=True,
            type=click.Choice(SENSOR_SETS),
            help="What the network is given. May be repeated.  [default: all there is]",
        ),
        click.option(
            "--batch-size", type=click.IntRange(min=1), default=64, help="Patches at once."
        ),
        click.option(
            "--crop-px",
            type=click.IntRange(min=0),
            default=0,
            help="Side of the centre crop taken of a patch; 0 takes all of it, 112 is published.",
        ),
        click.option(
            "--input-px",
            type=click.IntRange(min=0),
            default=0,
            help="Side to which that is resized; 0 takes the nearest that the network's patches "
            "tile.",
        ),
        click.option(
            "--device",
            type=click.Choice(get_args(DeviceChoice)),
            default="auto",
            help="Where to compute; `auto` takes a GPU where there is one.",
        ),
    )


def _with_options(command: Command, *options: Callable[[Command], Command]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


@click.command("evaluate")
@_network_options
@click.argument("dataset", type=_DATASET)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for scores.json, scores.csv, scores.md and scores.png.",
)
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    type=click.Choice(PROTOCOLS),
    default=PROTOCOLS,
    help="What learns on frozen features. May be repeated.",
)
@click.option(
    "--floor/--no-floor",
    default=True,
    help="Score the same network untrained as well.",
)
@_extraction_options
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
@config_option()
def evaluate_command(  # noqa: PLR0913 - one parameter per option
    network: NetworkChoice,
    dataset: Path,
    out: Path,
    extraction: ExtractionConfig,
    *,
    protocols: tuple[Protocol, ...],
    floor: bool,
    as_json: bool,
) -> None:
    """Score CHECKPOINT's frozen features on the DATASET's test split, with and without a sensor.

    CHECKPOINT is a run folder, a checkpoint, an export, the published weights, or `random`.
    """
    from dinomm_train.evaluation.pipeline import evaluate
    from dinomm_train.evaluation.report import to_plain, to_summary, write_report

    config = EvaluationConfig(
        network=network,
        dataset=dataset,
        protocols=tuple(dict.fromkeys(protocols)),
        floor=floor,
        extraction=extraction,
    )
    evaluation = evaluate(config)
    paths = write_report(evaluation, out)
    if as_json:
        print_json(to_plain(evaluation))
        return
    click.echo(to_summary(evaluation.rows))
    click.echo("\n" + "\n".join(str(path) for path in paths))


@click.command("embed")
@_network_options
@click.argument("dataset", type=_DATASET)
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_path_ending(".parquet"),
    help="Parquet file of keys and features.",
)
@_extraction_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@config_option()
def embed_command(
    network: NetworkChoice,
    dataset: Path,
    out: Path,
    extraction: ExtractionConfig,
    *,
    as_json: bool,
) -> None:
    """Write the features of every patch of DATASET, by key, split and sensors."""
    from dinomm_train.data.index import StoredDataset
    from dinomm_train.evaluation.embeddings import write_embeddings
    from dinomm_train.evaluation.networks import open_network

    stored = StoredDataset.open(dataset)
    rows = write_embeddings(open_network(network, stored), stored, out, extraction)
    if as_json:
        print_json({"out": str(out), "rows": rows})
        return
    click.echo(f"{rows:,} rows of features in {out}")


@click.command("export")
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_path_ending(".safetensors"),
    help="Safetensors file to write.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the file's metadata as JSON.")
def export_command(checkpoint: Path, out: Path, *, as_json: bool) -> None:
    """Write CHECKPOINT's teacher backbone for timm, with all that its user must know.

    CHECKPOINT is a run folder, a checkpoint, or the published weights.
    """
    from dinomm_train.export import write_export
    from dinomm_train.pretrained import read_frozen_backbone

    exported = write_export(read_frozen_backbone(checkpoint), out)
    if as_json:
        print_json({"out": str(out)} | exported.metadata)
        return
    arguments = ", ".join(f"{name}={value!r}" for name, value in exported.arguments.items())
    click.echo(f"{out} loads with\n")
    click.echo(f"timm.create_model({exported.name!r}, checkpoint_path={str(out)!r}, {arguments})")
