"""Options of the command line that say where a dataset lies, how it is read, and what is learnt."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from dinomm_train.config import Recipe, RunConfig, Shuffle
from dinomm_train.config_text import resolve_config
from dinomm_train.errors import TrainError

Command = Callable[..., Any]

_FOLDER = click.Path(file_okay=False, path_type=Path)


def dataset_location(_: click.Context, __: click.Parameter, value: str) -> str | Path:
    """A dataset's folder, which must exist, or an address such as s3://bucket/dataset."""
    if "://" in value:
        return value
    if not Path(value).is_dir():
        raise click.BadParameter(
            f"{value!r} is no folder, nor an address such as s3://bucket/dataset"
        )
    return Path(value)


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
        from dinomm_train.data.location import StorageOptions

        storage = StorageOptions(cache_dir=cache_dir, cache_gb=cache_gb, stage_dir=stage_dir)
        return command(storage=storage, **others)

    return with_options(
        with_storage,
        click.option(
            "--cache-dir",
            type=_FOLDER,
            help="Local disk for the shards of a dataset at an address. [default: $SLURM_TMPDIR, "
            "or else the folder for temporary files]",
        ),
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
    """Options of a command that takes a `config`: the recipe, a file, settings, the shuffle."""

    @functools.wraps(command)
    def with_config(
        *,
        recipe: Recipe,
        config_file: Path | None,
        assignments: tuple[str, ...],
        shuffle: Shuffle | None,
        **others: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        if shuffle is not None:
            assignments = (*assignments, f"sampling.shuffle={shuffle}")
        return command(config=config_or_usage_error(recipe, config_file, assignments), **others)

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
        click.option(
            "--set",
            "assignments",
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            help="One setting, such as schedule.epochs=20; wins over the file. May be repeated.",
        ),
        shuffle_option,
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


def with_options(command: Command, *options: Callable[[Command], Command]) -> Command:
    """The command with these options, listed in this order."""
    for option in reversed(options):
        command = option(command)
    return command
