"""What a run leaves when it stops for losses that are not finite: all that repeats the step.

`RUN/capsules/step-00000123/` holds `capsule.json` (the step, its batch's keys, seed and ranks) and
`state.pt`, a checkpoint from just before the step. Skipped steps move nothing, so that the state at
the stop is that.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bigearth_prep.whole_file import write_text
from dinomm_train.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from dinomm_train.checkpoint_writer import HostCopies, disk_fault
from dinomm_train.distributed import greatest_over_ranks
from dinomm_train.errors import TrainError
from dinomm_train.shared_weights import contribute
from dinomm_train.step_input import StepInput

FOLDER = "capsules"
_FACTS = "capsule.json"
_STATE = "state.pt"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Capsule:
    """One step that was skipped, the last of several in a row."""

    step: int
    """Its number, from zero over the whole run."""

    epoch: int
    """Its epoch, from zero."""

    seed: int
    """The run's seed: with step, epoch, key and view it decides every draw."""

    world: int
    """Ranks that shared the batch, one part after the other."""

    skipped_in_row: int
    """Steps skipped in a row, this one included."""

    keys: tuple[str, ...]
    """The global batch's samples, in order."""


def stop_for_skips(
    run: Path, before: Checkpoint, step_input: StepInput, advance: Callable[[], None]
) -> None:
    """Leave a capsule of the step after this checkpoint, and end the run.

    Rank zero writes, and calls `advance` whenever it has got on; the others give it their parts of
    the state.

    Raises:
        TrainError: always; it says where the capsule is, or why there is none.
    """
    folder, fault = run / FOLDER / f"step-{before.step:08}", ""
    if step_input.ranks.is_first:
        held = replace(before, **HostCopies().take(before.state))
        try:
            write_checkpoint(folder / _STATE, held, advance)
            _write_facts(folder, before, step_input)
        except (OSError, RuntimeError) as error:
            fault = disk_fault(run, error)
    else:
        contribute(before.state)
    # A rank that ends takes the others with it, whatever they are at.
    if greatest_over_ranks(int(bool(fault)), step_input.ranks):
        next_step = f"no capsule could be written: {fault or 'rank 0 says why'}"
    else:
        command = f"dinomm-train replay {folder} {step_input.dataset.location}"
        next_step = f"`{command}` names what first was not finite"
    raise TrainError(
        f"{int(before.skips['in_row'])} steps in a row up to step {before.step} were skipped, as a "
        "loss or gradient was not finite (optim.stop_after_skipped = "
        f"{before.config.optim.stop_after_skipped}); {next_step}. Start again in another --out "
        "with a lower schedule.lr, --precision fp32, or without the samples at fault"
    )


def _write_facts(folder: Path, before: Checkpoint, step_input: StepInput) -> None:
    capsule = Capsule(
        step=before.step,
        epoch=before.step // before.steps_per_epoch,
        seed=before.config.sampling.seed,
        world=step_input.ranks.world,
        skipped_in_row=int(before.skips["in_row"]),
        keys=step_input.keys(before.step),
    )
    write_text(folder / _FACTS, json.dumps(asdict(capsule), indent=2) + "\n")
    _log.warning("step %d can be replayed from %s", before.step, folder)


def read_capsule(folder: Path) -> tuple[Capsule, Checkpoint]:
    """The step that a capsule is of, and the state before it.

    Raises:
        TrainError: the folder is no whole capsule.
    """
    path = folder / _FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        capsule = Capsule(**facts | {"keys": tuple(facts["keys"])})
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise TrainError(
            f"{folder} is no whole capsule ({error}); name a folder in RUN/{FOLDER}"
        ) from error
    return capsule, read_checkpoint(folder / _STATE)
