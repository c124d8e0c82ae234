"""Options that several commands share: where a dataset lies, how it is read, what is learnt."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from bigearth_prep.terminal import Command, with_options
from dinomm_train.config import DeviceChoice, Recipe, RunConfig, Shuffle
from dinomm_train.config_text import resolve_config
from dinomm_train.data.storage_options import StorageOptions
from dinomm_train.errors import TrainError

_FOLDER = click.Path(file_okay=False, path_type=Path)

_SHORTHANDS = {
    "precision": "sampling.precision",
    "shuffle": "sampling.shuffle",
    "compile_blocks": "compute.compile",
    "keep_last": "output.keep_last",
    "keep_every": "output.keep_every_steps",
}
"""Settings that have an option of their own, by its parameter."""


def dataset_location(_: click.Context, __: click.Parameter, value: str) -> str | Path:
    """A dataset's folder, which must exist, or an address such as s3://bucket/dataset."""
    if "://" in value:
        return value
    if not Path(value).is_dir():
        raise click.BadParameter(
            f"{value!r} is no folder, nor an address such as s3://bucket/dataset"
        )
    return Path(value)


device_option = click.option(
    "--device",
    type=click.Choice(get_args(DeviceChoice)),
    default="auto",
    help="Where to compute; `auto` takes a GPU where there is one.",
)


cache_dir_option = click.option(
    "--cache-dir",
    type=_FOLDER,
    help="Local disk for what is fetched of a dataset at an address. [default: $SLURM_TMPDIR, or "
    "else the folder for temporary files]",
)


def storage_options(command: Command) -> Command:
    """Options of a command that takes a `storage`: where shards that lie elsewhere are kept."""

    @functools.wraps(command)
    def with_storage(
        *,
        cache_dir: Path | None,
        cache_gb: float,
        stage_dir: Path | None,
        **others: Any,  # noqa: ANN401 - click passes the rest by name
    ) -> Any:  # noqa: ANN401
        storage = StorageOptions(cache_dir=cache_dir, cache_gb=cache_gb, stage_dir=stage_dir)
        return command(storage=storage, **others)

    return with_options(
        with_storage,
        cache_dir_option,
        click.option(
            "--cache-gb",
            type=click.FloatRange(min=0),
            default=0.0,
            help="Most that shards take there or in --stage-dir, in 10^9 bytes; 0 takes most of "
            "what is free.",
        ),
        click.option(
            "--stage-dir",
            type=_FOLDER,
            help="Local disk onto which the shards of a folder on a shared file system are copied, "
            "once per machine.",
        ),
    )


def reading_options(command: Command) -> Command:
    """Options of a command that takes a `reading`: how batches are read."""

    @functools.wraps(command)
    def with_reading(
        *,
        read_threads: int,
        verify_reads: bool,
        **others: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        from dinomm_train.data.loader import ReadOptions

        reading = ReadOptions(threads=read_threads, verify=verify_reads)
        return command(reading=reading, **others)

    return with_options(
        with_reading,
        click.option(
            "--read-threads",
            type=click.IntRange(min=1),
            default=2,
            help="Threads of each process that read batches; more help on storage that is slow "
            "to answer.",
        ),
        click.option(
            "--verify-reads",
            is_flag=True,
            help="Hold each sample that is read against its checksum in the manifest.",
        ),
    )


def run_config_options(command: Command) -> Command:
    """Options of a command that takes a `config`: the recipe, a file, settings.

    Shorthands such as `--shuffle`, where the command has them, are settings like any other, and
    win over `--set`.
    """

    @functools.wraps(command)
    def with_config(
        *,
        recipe: Recipe,
        config_file: Path | None,
        assignments: tuple[str, ...],
        **others: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        given = {key: others.pop(name) for name, key in _SHORTHANDS.items() if name in others}
        # A flag that is not given says nothing.
        said = {key: one for key, one in given.items() if one is not None and one is not False}
        short = (f"{key}={json.dumps(one)}" for key, one in said.items())
        config = config_or_usage_error(recipe, config_file, (*assignments, *short))
        return command(config=config, **others)

    return with_options(
        with_config,
        click.option(
            "--recipe",
            type=click.Choice(get_args(Recipe)),
            default="fixed",
            help="`paper` repeats what was published, `fixed` repairs its defects.",
        ),
        click.option(
            "--config",
            "config_file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="TOML file of settings in sections; they win over the recipe.",
        ),
        settings_option(
            "One setting, such as schedule.epochs=20; wins over the file. May be repeated."
        ),
    )


def settings_option(what: str) -> Callable[[Command], Command]:
    """A `--set` option that a command takes as `assignments`; `what` says of what."""
    return click.option(
        "--set", "assignments", multiple=True, metavar="SECTION.KEY=VALUE", help=what
    )


shuffle_option = click.option(
    "--shuffle",
    type=click.Choice(get_args(Shuffle)),
    help="Same as --set sampling.shuffle=...; `block` mixes sampling.block_shards shards at a "
    "time, so that reads stay local.",
)


def config_or_usage_error(
    recipe: Recipe, config_file: Path | None, assignments: tuple[str, ...]
) -> RunConfig:
    """The resolved configuration.

    Raises:
        click.UsageError: a setting is unknown or does not fit.
    """
    try:
        return resolve_config(recipe, config_file, assignments)
    except TrainError as error:
        raise click.UsageError(str(error)) from error
