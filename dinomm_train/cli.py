"""The `dinomm-train` command."""

import functools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from bigearth_prep.errors import PrepError
from bigearth_prep.terminal import VerboseCommand, json_option, print_json, run_group, set_verbosity
from dinomm_train import __version__
from dinomm_train.command_options import (
    dataset_location,
    device_option,
    reading_options,
    run_config_options,
    shuffle_option,
    storage_options,
)
from dinomm_train.config import DeviceChoice, Precision, RunConfig
from dinomm_train.data.storage_options import StorageOptions
from dinomm_train.errors import TrainError
from dinomm_train.evaluation.evaluate_command import evaluate_command
from dinomm_train.evaluation.use_commands import attention_command, embed_command, export_command
from dinomm_train.requeue import ask_for_requeue
from dinomm_train.stop_request import StoppedEarly, StopRequest
from dinomm_train.stream_commands import doctor_command, order_command

if TYPE_CHECKING:
    from dinomm_train.data.loader import ReadOptions
    from dinomm_train.trainer import PretrainResult

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

REQUEUE = 85
"""Exit code after another signal: there is a checkpoint, start the same command again."""


def _heed_signals(command: Callable[..., int]) -> Callable[..., int]:
    """The command, which hears of signals from before its imports to the end of the process."""

    @functools.wraps(command)
    def listening(**options: object) -> int:
        stop = StopRequest()
        stop.listen()  # not undone: launchers may send a signal twice
        return command(stop=stop, **options)

    return listening


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="dinomm-train")
@click.option("-v", "--verbose", count=True, help="Say more; twice shows tracebacks.")
def cli(verbose: int) -> None:
    """Pretrain vision transformers on radar and optical patches, and evaluate them."""
    set_verbosity(verbose)


cli.command_class = VerboseCommand


@cli.command("pretrain")
@_heed_signals
@click.argument("dataset", callback=dataset_location)
@click.option(
    "--out",
    "run",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the run; one that holds a checkpoint is continued.",
)
@run_config_options
@click.option(
    "--max-steps",
    type=click.IntRange(min=0),
    default=0,
    help="Save and stop after so many steps of this invocation; 0 goes on to the end.",
)
@device_option
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
@click.option(
    "--keep-last",
    type=click.IntRange(min=1),
    help="Same as --set output.keep_last=...: newest checkpoints kept.  [default: 3]",
)
@click.option(
    "--keep-every",
    type=click.IntRange(min=0),
    help="Same as --set output.keep_every_steps=...: also keep those of such steps.  [default: 0]",
)
@click.option(
    "--hang-timeout",
    "hang_timeout_s",
    type=click.FloatRange(min=0),
    default=300.0,
    help="Seconds without progress, or word of a rank, after which the run ends with a message; "
    "ten times as long up to the first step. 0 waits for ever.",
)
@json_option("where the run stands")
@shuffle_option
@storage_options
@reading_options
def pretrain_command(  # noqa: PLR0913 - one parameter per option
    *,
    dataset: str | Path,
    run: Path,
    config: RunConfig,
    max_steps: int,
    device: DeviceChoice,
    threads: int,
    hang_timeout_s: float,
    storage: StorageOptions,
    reading: "ReadOptions",
    as_json: bool,
    stop: StopRequest,
) -> int:
    """Train a network on the DATASET's train split, without labels (DINO-MM).

    DATASET is a folder, or an address such as s3://bucket/dataset or https://host/dataset.
    Starts a run, or goes on with a stopped one; runs alone, under torchrun and under srun.
    """
    from dinomm_train.trainer import LaunchOptions, pretrain

    options = LaunchOptions(
        device=device,
        max_steps=max_steps,
        threads=threads,
        hang_timeout_s=hang_timeout_s,
        storage=storage,
        reading=reading,
    )
    try:
        result = pretrain(dataset, run, config, options, stop)
    except StoppedEarly as early:
        return _signal_code(early.signal_number, run)
    if as_json and result.is_first_rank:
        print_json(result.to_dict())
    return _exit_code(result)


@cli.command("replay")
@click.argument("capsule", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("dataset", callback=dataset_location)
@device_option
@storage_options
@json_option("the finding")
def replay_command(
    *,
    capsule: Path,
    dataset: str | Path,
    device: DeviceChoice,
    storage: StorageOptions,
    as_json: bool,
) -> int:
    """Repeat the step of a CAPSULE on its DATASET, and name what first was not finite.

    A run that stops for losses that are not finite leaves RUN/capsules/step-... Exit code 1 says
    that all was finite this time.
    """
    from dinomm_train.data.location import open_dataset
    from dinomm_train.replay import replay

    result = replay(capsule, open_dataset(dataset, storage), device)
    if as_json:
        print_json(result.to_dict())
    else:
        click.echo(result.describe())
    return 0 if result.finding else 1


for _command in (
    evaluate_command,
    embed_command,
    attention_command,
    export_command,
    order_command,
    doctor_command,
):
    cli.add_command(_command)


def _exit_code(result: "PretrainResult") -> int:
    if result.is_finished or not result.signal_number:
        return 0
    return _signal_code(result.signal_number, result.run)


def _signal_code(number: int, run: Path) -> int:
    if number == signal.SIGINT:
        return INTERRUPTED
    ask_for_requeue(run)
    return REQUEUE


def main() -> None:
    """Run the command and end the process with the project's exit codes."""
    run_group(cli, (TrainError, PrepError))
