"""The command `evaluate`."""

import dataclasses
import functools
from itertools import product
from pathlib import Path
from typing import Any

import click

from bigearth_prep.terminal import Command, config_option, json_option, print_json, with_options
from dinomm_train.command_options import dataset_location, storage_options
from dinomm_train.data.storage_options import StorageOptions
from dinomm_train.evaluation.config import (
    DEFAULT_PROTOCOLS,
    FLOORS,
    PROTOCOLS,
    SENSOR_SETS,
    EvaluationConfig,
    ExtractionConfig,
    Floor,
    NetworkChoice,
    Protocol,
    SensorPair,
    SensorSet,
)
from dinomm_train.evaluation.network_options import extraction_options, network_options
from dinomm_train.evaluation.protocol_config import FinetuneConfig, LegacyConfig, LinearConfig


def _beside(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    named = {}
    for value in values:
        name, equals, checkpoint = value.partition("=")
        if not (name and equals and Path(checkpoint).exists()):
            raise click.BadParameter(
                f"{value!r} must be NAME=CHECKPOINT, and the checkpoint must exist"
            )
        if name in named:
            raise click.BadParameter(f"{name} is given twice: each row needs a name of its own")
        named[name] = checkpoint
    return named


_MATRIX = (
    click.option(
        "--protocol",
        "protocols",
        multiple=True,
        type=click.Choice(PROTOCOLS),
        default=DEFAULT_PROTOCOLS,
        help="How labels are learnt. May be repeated.",
    ),
    click.option(
        "--train-sensors",
        multiple=True,
        type=click.Choice(SENSOR_SETS),
        help="Also learn on patches seen by these. May be repeated.",
    ),
    click.option(
        "--test-sensors",
        multiple=True,
        type=click.Choice(SENSOR_SETS),
        help="And score that on patches seen by these. May be repeated.",
    ),
    click.option(
        "--label-fraction",
        "label_fractions",
        multiple=True,
        type=click.FloatRange(min=0, min_open=True, max=1),
        default=(1.0,),
        help="Share of the train split whose labels are used. May be repeated.",
    ),
    click.option(
        "--seeds",
        type=click.IntRange(min=1),
        default=1,
        help="Repetitions, each with its own few labels, orders and new layers.",
    ),
    click.option(
        "--floor",
        "floors",
        multiple=True,
        type=click.Choice(FLOORS),
        default=FLOORS,
        help="Scored beside it: itself untrained, channel statistics, random convolutions.",
    ),
    click.option(
        "--no-floor",
        "floor",
        is_flag=True,
        flag_value=False,
        default=True,
        show_default=False,
        help="None of these.",
    ),
    click.option(
        "--supervised",
        is_flag=True,
        help="Also train the same network from scratch with the labels.",
    ),
    click.option(
        "--beside",
        multiple=True,
        callback=_beside,
        metavar="NAME=CHECKPOINT",
        help="Another checkpoint in the same table, such as one pretrained on one sensor.",
    ),
    click.option(
        "--bootstrap",
        type=click.IntRange(min=1),
        default=500,
        help="Resamples of the test split behind each interval.",
    ),
)


def _matrix_options(command: Command) -> Command:
    """Options that say what is scored; the command takes them as a `matrix` of keywords."""

    @functools.wraps(command)
    def with_matrix(
        *,
        protocols: tuple[Protocol, ...],
        train_sensors: tuple[SensorSet, ...],
        test_sensors: tuple[SensorSet, ...],
        label_fractions: tuple[float, ...],
        floors: tuple[Floor, ...],
        floor: bool,
        **others: Any,  # noqa: ANN401 - click passes the rest by name
    ) -> Any:  # noqa: ANN401
        if bool(train_sensors) != bool(test_sensors):
            raise click.UsageError("--train-sensors and --test-sensors go together")
        names = ("seeds", "beside", "supervised", "bootstrap")
        matrix = {name: others.pop(name) for name in names} | {
            "protocols": tuple(dict.fromkeys(protocols)),
            "crossed": tuple(
                SensorPair(train=train, test=test)
                for train, test in product(
                    dict.fromkeys(train_sensors), dict.fromkeys(test_sensors)
                )
            ),
            "label_fractions": tuple(sorted(set(label_fractions))),
            "floors": tuple(dict.fromkeys(floors)) if floor else (),
        }
        return command(matrix=matrix, **others)

    return with_options(with_matrix, *_MATRIX)


_PROTOCOL = (
    click.option("--linear-epochs", type=click.IntRange(min=1), default=100, help="Of `linear`."),
    click.option(
        "--finetune-epochs", type=click.IntRange(min=1), default=20, help="Of `finetune`."
    ),
    click.option(
        "--finetune-lr",
        type=click.FloatRange(min=0, min_open=True),
        multiple=True,
        default=(1e-3,),
        help="Of `finetune`; validation chooses among several. May be repeated.",
    ),
    click.option("--legacy-epochs", type=click.IntRange(min=1), default=100, help="Of `legacy`."),
    click.option(
        "--legacy-lr",
        type=click.FloatRange(min=0, min_open=True),
        default=0.01,
        help="Of `legacy`; published are 0.01 for DINO-MM and 0.1 for an untrained network.",
    ),
)


def _protocol_options(command: Command) -> Command:
    """Options that shape protocols; the command takes them as `settings`, keywords too."""

    @functools.wraps(command)
    def with_settings(
        *,
        linear_epochs: int,
        finetune_epochs: int,
        finetune_lr: tuple[float, ...],
        legacy_epochs: int,
        legacy_lr: float,
        **others: Any,  # noqa: ANN401 - click passes the rest by name
    ) -> Any:  # noqa: ANN401
        pretrained = FinetuneConfig(epochs=finetune_epochs, learning_rates=finetune_lr)
        settings = {
            "linear": LinearConfig(epochs=linear_epochs),
            "finetune": pretrained,
            "scratch": dataclasses.replace(pretrained, layer_decay=1.0),
            "legacy": LegacyConfig(epochs=legacy_epochs, learning_rate=legacy_lr),
        }
        return command(settings=settings, **others)

    return with_options(with_settings, *_PROTOCOL)


@click.command("evaluate")
@network_options
@click.argument("dataset", callback=dataset_location)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for report.html, scores as JSON, CSV and Markdown, pictures, and labelled keys.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of features and predictions that later calls find again.  [default: OUT/cache]",
)
@_matrix_options
@_protocol_options
@extraction_options
@storage_options
@json_option("the scores")
@config_option()
def evaluate_command(  # noqa: PLR0913 - one parameter per group of options
    *,
    network: NetworkChoice,
    dataset: str | Path,
    out: Path,
    cache: Path | None,
    extraction: ExtractionConfig,
    storage: StorageOptions,
    matrix: dict[str, Any],
    settings: dict[str, Any],
    as_json: bool,
) -> None:
    """Score CHECKPOINT on the DATASET's test split: radar, optical and both, many or few labels.

    CHECKPOINT is a run folder, a checkpoint, an export, the published weights, a timm ViT's state
    dict, `random` or `supervised`. The same line runs alone, under torchrun and under srun.
    """
    from dinomm_train.evaluation.pipeline import evaluate
    from dinomm_train.evaluation.report.files import write_report
    from dinomm_train.evaluation.report.markdown import to_brief
    from dinomm_train.evaluation.report.tables import to_plain

    try:
        config = EvaluationConfig(
            network=network,
            dataset=dataset,
            storage=storage,
            cache=cache or out / "cache",
            extraction=extraction,
            **matrix,
            **settings,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    findings = evaluate(config)
    if findings is None:
        return
    evaluation = findings.evaluation
    paths = write_report(evaluation, out, findings.gallery)
    if as_json:
        print_json(to_plain(evaluation))
        return
    click.echo(to_brief(evaluation) + "\n\n" + "\n".join(map(str, paths)))
