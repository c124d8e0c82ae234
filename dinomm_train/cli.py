"""The `dinomm-train` command."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from bigearth_prep.errors import PrepError
from bigearth_prep.terminal import VerboseCommand, print_json, run_group, set_verbosity
from dinomm_train import __version__
from dinomm_train.config import DeviceChoice, Precision, Recipe, Shuffle
from dinomm_train.errors import TrainError
from dinomm_train.evaluation.commands import embed_command, evaluate_command, export_command
from dinomm_train.stream_commands import doctor_command, order_command
from dinomm_train.stream_options import (
    config_or_usage_error,
    dataset_location,
    reading_options,
    shuffle_option,
    storage_options,
)

if TYPE_CHECKING:
    from dinomm_train.data.loader import ReadOptions
    from dinomm_train.data.location import StorageOptions
    from dinomm_train.trainer import PretrainResult

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

REQUEUE = 85
"""Exit code after another signal: there is a checkpoint, start the same command again."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="dinomm-train")
@click.option("-v", "--verbose", count=True, help="Say more; twice shows tracebacks.")
def cli(verbose: int) -> None:
    """Pretrain vision transformers on radar and optical patches, and evaluate them."""
    set_verbosity(verbose)


cli.command_class = VerboseCommand


@cli.command("pretrain")
@click.argument("dataset", callback=dataset_location)
@click.option(
    "--out",
    "run",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the run; one that holds a checkpoint is continued.",
)
@click.option(
    "--recipe",
    type=click.Choice(get_args(Recipe)),
    default="fixed",
    help="`paper` repeats what was published, `fixed` repairs its defects.",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file of settings in sections; they win over the recipe.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="One setting, such as schedule.epochs=20; wins over the file. May be repeated.",
)
@click.option(
    "--max-steps",
    type=click.IntRange(min=0),
    default=0,
    help="Save and stop after so many steps of this invocation; 0 goes on to the end.",
)
@click.option(
    "--device",
    type=click.Choice(get_args(DeviceChoice)),
    default="auto",
    help="Where to compute; `auto` takes a GPU where there is one.",
)
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    help="Same as --set sampling.precision=...; `auto` is bf16 on GPUs that have it.",
)
@click.option(
    "--compile",
    "compile_blocks",
    is_flag=True,
    help="Compile the student's and the teacher's blocks: same as --set compute.compile=true.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=0),
    default=0,
    help="CPU threads per process; 0 leaves the choice to torch.",
)
@shuffle_option
@storage_options
@reading_options
@click.option("--json", "as_json", is_flag=True, help="Print where the run stands as JSON.")
def pretrain_command(  # noqa: PLR0913 - one parameter per option
    *,
    dataset: str | Path,
    run: Path,
    recipe: Recipe,
    config_file: Path | None,
    assignments: tuple[str, ...],
    max_steps: int,
    device: DeviceChoice,
    precision: Precision | None,
    compile_blocks: bool,
    threads: int,
    shuffle: Shuffle | None,
    storage: "StorageOptions",
    reading: "ReadOptions",
    as_json: bool,
) -> int:
    """Train a network on the DATASET's train split, without labels (DINO-MM).

    DATASET is a folder, or an address such as s3://bucket/dataset or https://host/dataset.
    Starts a run, or goes on with a stopped one; runs alone, under torchrun and under srun.
    """
    if precision is not None:
        assignments = (*assignments, f"sampling.precision={precision}")
    if compile_blocks:
        assignments = (*assignments, "compute.compile=true")
    if shuffle is not None:
        assignments = (*assignments, f"sampling.shuffle={shuffle}")
    config = config_or_usage_error(recipe, config_file, assignments)
    from dinomm_train.trainer import LaunchOptions, pretrain

    options = LaunchOptions(
        device=device, max_steps=max_steps, threads=threads, storage=storage, reading=reading
    )
    result = pretrain(dataset, run, config, options)
    if as_json and result.is_first_rank:
        print_json(result.to_dict())
    return _exit_code(result)


for _command in (evaluate_command, embed_command, export_command, order_command, doctor_command):
    cli.add_command(_command)


def _exit_code(result: "PretrainResult") -> int:
    if result.is_finished or not result.signal_number:
        return 0
    return INTERRUPTED if result.signal_number == signal.SIGINT else REQUEUE


def main() -> None:
    """Run the command and end the process with the project's exit codes."""
    run_group(cli, (TrainError, PrepError))
