"""The commands that look at a training stream without training: `order` and `doctor`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bigearth_prep.terminal import json_option, print_json
from dinomm_train.command_options import (
    cache_dir_option,
    dataset_location,
    device_option,
    reading_options,
    run_config_options,
    shuffle_option,
    storage_options,
)
from dinomm_train.config import DeviceChoice, RunConfig
from dinomm_train.data.storage_options import StorageOptions

if TYPE_CHECKING:
    from dinomm_train.data.loader import ReadOptions
    from dinomm_train.data.lookup import Appearance, StepSamples


@click.command("order")
@click.argument("source", metavar="RUN|DATASET", callback=dataset_location)
@click.option(
    "--step", type=click.IntRange(min=0), help="Say which samples this step sees, from 0."
)
@click.option("--key", help="Say at which steps the sample of this key comes.")
@click.option(
    "--ranks",
    type=click.IntRange(min=1),
    help="Processes that share a step. [default: as many as the run was last started with, or 1]",
)
@run_config_options
@shuffle_option
@cache_dir_option
@json_option("the answer")
def order_command(  # noqa: PLR0913 - one parameter per option
    *,
    source: str | Path,
    step: int | None,
    key: str | None,
    ranks: int | None,
    config: RunConfig,
    cache_dir: Path | None,
    as_json: bool,
) -> None:
    """Say which samples a step sees, or when a sample comes, without reading any.

    Of a RUN the settings and the dataset are those that it was started with; of a DATASET the
    settings are the options'. Card and manifest are read, and no shard: none need be there.
    """
    if (step is None) == (key is None):
        raise click.UsageError("give either --step or --key")
    from dinomm_train.data.lookup import appearances_of_key, samples_of_step
    from dinomm_train.order_lookup import open_order

    found = open_order(source, config, ranks, cache_dir)
    if found.is_last_start:
        click.echo(
            f"ranks are those of the run's last start, of {found.ranks:,} process(es); for steps "
            "before a start with another number give --ranks",
            err=True,
        )
    if step is not None:
        found.require_step(step)
        seen = samples_of_step(found.split, found.order, step, world=found.ranks)
        print_json(asdict(seen)) if as_json else _print_step(seen)
    elif key is not None:
        times = list(
            appearances_of_key(
                found.split, found.order, key, epochs=found.epochs, world=found.ranks
            )
        )
        answer = {"key": key, "appearances": [asdict(one) for one in times]}
        print_json(answer) if as_json else _print_appearances(key, times, found.epochs)


def _print_step(seen: "StepSamples") -> None:
    click.echo(
        f"step {seen.step:,} is step {seen.step_in_epoch:,} of epoch {seen.epoch:,}", err=True
    )
    for rank, keys in enumerate(seen.keys_by_rank):
        for key in keys:
            click.echo(f"{rank}\t{key}")


def _print_appearances(key: str, times: list["Appearance"], epochs: int) -> None:
    left_out = epochs - len(times)
    click.echo(
        f"{key} comes {len(times):,} times and is left out of {left_out:,} of {epochs:,} epochs; "
        "epoch, step, rank:",
        err=True,
    )
    for one in times:
        click.echo(f"{one.epoch}\t{one.step}\t{one.rank}")


@click.command("doctor")
@click.argument("dataset", callback=dataset_location)
@run_config_options
@shuffle_option
@device_option
@click.option(
    "--ranks",
    type=click.IntRange(min=1),
    default=1,
    help="Processes that the run will have, on all its machines together.",
)
@click.option(
    "--nodes",
    type=click.IntRange(min=1),
    default=1,
    help="Machines like this one that share those processes out evenly.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=0),
    default=0,
    help="Samples of the steps that are measured; 0: a rank's share, on a CPU at most 8.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    default=5.0,
    help="For each measurement, in seconds.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Folder of the coming run; its disk must hold the checkpoints.",
)
@storage_options
@reading_options
@json_option("the findings")
def doctor_command(  # noqa: PLR0913 - one parameter per option
    *,
    dataset: str | Path,
    config: RunConfig,
    device: DeviceChoice,
    ranks: int,
    nodes: int,
    batch: int,
    seconds: float,
    out: Path,
    storage: StorageOptions,
    reading: "ReadOptions",
    as_json: bool,
) -> int:
    """Measure what this machine can reach with the DATASET, and name what limits it.

    Disk, reader, views, step and matrix products are timed one after another; what would stop a
    run is checked. Exit code 1 where a check fails.
    """
    from dinomm_train.data.location import open_dataset
    from dinomm_train.doctor.examine import ExamineConfig, examine
    from dinomm_train.doctor.table import print_diagnosis

    try:
        wanted = ExamineConfig(
            device=device,
            ranks=ranks,
            nodes=nodes,
            batch=batch,
            seconds=seconds,
            out=out,
            reading=reading,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    diagnosis = examine(open_dataset(dataset, storage), config, wanted)
    print_json(diagnosis.to_dict()) if as_json else print_diagnosis(diagnosis)
    return 0 if diagnosis.is_healthy else 1
