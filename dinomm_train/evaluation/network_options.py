"""Options that the commands which use a pretrained network share."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click

from bigearth_prep.terminal import Command, with_options
from dinomm_train.command_options import config_or_usage_error, device_option, settings_option
from dinomm_train.config import DeviceChoice
from dinomm_train.evaluation.config import (
    RANDOM,
    SENSOR_SETS,
    SUPERVISED,
    ExtractionConfig,
    NetworkChoice,
    SensorSet,
)


def existing_checkpoint(_: click.Context, __: click.Parameter, value: str) -> str:
    """The value, where it names an untrained network or something that exists."""
    if value not in (RANDOM, SUPERVISED) and not Path(value).exists():
        raise click.BadParameter(
            f"{value!r} does not exist; name a run folder, a checkpoint, an export, the published "
            f"weights, a timm ViT's state dict, {RANDOM!r} or {SUPERVISED!r}"
        )
    return value


def path_ending(*suffixes: str) -> Callable[[click.Context, click.Parameter, Path], Path]:
    """A callback that refuses paths with any other ending."""

    def check(_: click.Context, __: click.Parameter, path: Path) -> Path:
        if path.suffix not in suffixes:
            raise click.BadParameter(f"{path} must end in {' or '.join(suffixes)}")
        return path

    return check


_NETWORK = (
    click.argument("checkpoint", callback=existing_checkpoint),
    click.option(
        "--architecture",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Training configuration whose network `random` is, such as a run's config.toml.",
    ),
    settings_option("One of its settings, such as model.depth=6. May be repeated."),
    click.option("--seed", type=click.IntRange(min=0), default=0, help="Of untrained weights."),
)


def network_options(command: Command) -> Command:
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
        if checkpoint not in (RANDOM, SUPERVISED) and (architecture or assignments):
            raise click.UsageError(
                f"{checkpoint} has its own network; the options shape `random` and `supervised`"
            )
        config = config_or_usage_error("fixed", architecture, assignments)
        choice = NetworkChoice(checkpoint=checkpoint, untrained=config, seed=seed)
        return command(network=choice, **others)

    return with_options(with_network, *_NETWORK)


_EXTRACTION = (
    click.option(
        "--sensors",
        multiple=True,
        type=click.Choice(SENSOR_SETS),
        help="What the network is given. May be repeated.  [default: all there is]",
    ),
    click.option("--batch-size", type=click.IntRange(min=1), default=64, help="Patches at once."),
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
        help="Side to which that is resized; 0 takes the nearest that the network's patches tile.",
    ),
    device_option,
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16"]),
        default="fp32",
        help="Of frozen networks; bf16 is faster on a GPU, and features differ in the third digit.",
    ),
)


def extraction_options(command: Command) -> Command:
    """Options of a command that takes an `extraction`."""

    @functools.wraps(command)
    def with_extraction(
        *,
        sensors: tuple[SensorSet, ...],
        batch_size: int,
        crop_px: int,
        input_px: int,
        device: DeviceChoice,
        precision: Literal["fp32", "bf16"],
        **others: Any,  # noqa: ANN401 - click passes the rest by name
    ) -> Any:  # noqa: ANN401
        extraction = ExtractionConfig(
            sensor_sets=tuple(dict.fromkeys(sensors)),
            batch_size=batch_size,
            crop_px=crop_px,
            input_px=input_px,
            device=device,
            precision=precision,
        )
        return command(extraction=extraction, **others)

    return with_options(with_extraction, *_EXTRACTION)
