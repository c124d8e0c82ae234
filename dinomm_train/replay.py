"""A skipped step once more, watched: what in it was the first thing that was not finite."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from dinomm_train.capsule import Capsule, read_capsule
from dinomm_train.checkpoint import Checkpoint
from dinomm_train.config import DeviceChoice
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.inputs import to_network_input
from dinomm_train.data.stream import StoredBatch
from dinomm_train.data.views import Views
from dinomm_train.distributed import Ranks, choose_device
from dinomm_train.errors import TrainError
from dinomm_train.learner import Learner, without_sharding
from dinomm_train.resume import restore_learner
from dinomm_train.step_input import StepInput


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """What became of the step this time."""

    step: int
    """Its number."""

    epoch: int
    """Its epoch, from zero."""

    samples: int
    """Samples of its batch, over all ranks."""

    finding: str
    """The first thing that was not finite; empty where all was."""

    rank: int
    """Whose share of the batch it was in; zero where all was finite."""

    def describe(self) -> str:
        """The finding in words."""
        where = f"step {self.step} (epoch {self.epoch}, {self.samples} samples)"
        if self.finding:
            return f"{where}, rank {self.rank}: first not finite was {self.finding}"
        return (
            f"{where}: everything was finite this time; the fault lies in the arithmetic or the "
            "hardware of the run, not in its data or weights"
        )

    def to_dict(self) -> dict[str, object]:
        """The same in plain values, for scripts."""
        return asdict(self)


def replay(folder: Path, dataset: StoredDataset, device: DeviceChoice) -> Replay:
    """The step of a capsule, repeated share by share in one process.

    Raises:
        TrainError: the folder is no capsule, or the dataset is not the one that it is of.
    """
    capsule, before = read_capsule(folder)
    if dataset.checksum != before.dataset_checksum:
        raise TrainError(
            f"{folder} is of a dataset with checksum {before.dataset_checksum}, but that of "
            f"{dataset.location} is {dataset.checksum}; name the dataset that the run learnt from"
        )
    where = choose_device(device)
    learner = Learner(
        without_sharding(before.config),
        Ranks(rank=0, world=1, device=where),
        channels=len(dataset.card.channels),
    )
    for rank in range(capsule.world):
        share = Ranks(rank=rank, world=capsule.world, device=where)
        finding = _replay_share(capsule, before, learner, StepInput(dataset, before.config, share))
        if finding:
            break
    else:
        rank, finding = 0, ""
    return Replay(
        step=capsule.step,
        epoch=capsule.epoch,
        samples=len(capsule.keys),
        finding=finding,
        rank=rank,
    )


def _replay_share(
    capsule: Capsule, before: Checkpoint, learner: Learner, step_input: StepInput
) -> str:
    rank = step_input.ranks.rank
    batch = step_input.batch(capsule.step)
    if step_input.keys(capsule.step) != capsule.keys:
        raise TrainError(
            f"the batch of step {capsule.step} is of other samples than the capsule says; replay "
            "with the version that wrote it"
        )
    keys = capsule.keys[rank * len(batch.positions) : (rank + 1) * len(batch.positions)]
    restore_learner(learner, before, Path(f"capsule of step {capsule.step}"))
    learner.ranks = replace(learner.ranks, rank=rank)  # what stochastic depth is drawn from
    found = FirstNotFinite()
    _look_at_state(found, before)
    _look_at_input(found, batch, keys, step_input)
    views = step_input.views(batch, capsule.step)
    _look_at_views(found, views, keys)
    with _watched(learner, found):
        report = learner.step(views, step_input.values(capsule.step), capsule.step)
    found.note("the loss", report.loss)
    found.note("the norm of all gradients", report.gradient_norm)
    return found.what


class FirstNotFinite:
    """Remembers the first tensor that holds something other than finite numbers."""

    def __init__(self) -> None:
        self.what = ""
        """What it was, and how much of it; empty where there was none."""

    def note(self, name: str, value: object) -> None:
        """Look at a tensor, or at several, unless one was found already."""
        if isinstance(value, tuple):
            for one in value:
                self.note(name, one)
        if self.what or not isinstance(value, Tensor) or not value.is_floating_point():
            return
        count = int((~value.isfinite()).sum())
        if count:
            nan = int(value.isnan().sum())
            self.what = (
                f"{name}: {count:,} of {value.numel():,} values are not finite ({nan:,} NaN, "
                f"{count - nan:,} infinite)"
            )


def _look_at_state(found: FirstNotFinite, before: Checkpoint) -> None:
    for part in ("student", "teacher", "loss"):
        for name, weights in before.state[part].items():
            found.note(f"{part} {name}, before the step", weights)


def _look_at_input(
    found: FirstNotFinite, batch: StoredBatch, keys: tuple[str, ...], step_input: StepInput
) -> None:
    channels = step_input.dataset.card.channels
    images = to_network_input(batch, step_input.scaling, step_input.ranks.device)
    for key, image in zip(keys, images, strict=True):
        for name, band in zip(channels, image, strict=True):
            found.note(f"sample {key}, band {name}, as stored", band)


def _look_at_views(found: FirstNotFinite, views: Views, keys: tuple[str, ...]) -> None:
    seen_by = {"teacher": (views.teacher_crops,), "student": views.student_crops}
    for kind, crops_by_size in seen_by.items():
        first = 0
        for crops in crops_by_size:
            for index, crop in enumerate(crops):
                view = first + index // len(keys)
                found.note(f"view {view} of sample {keys[index % len(keys)]} ({kind})", crop)
            first += len(crops) // len(keys)


@contextmanager
def _watched(learner: Learner, found: FirstNotFinite) -> Iterator[None]:
    """Every layer's output and every gradient is looked at, as each comes about."""
    with ExitStack() as hooks:
        for name, module in learner.networks.named_modules():
            hook = module.register_forward_hook(partial(_note_output, found, name))
            hooks.callback(hook.remove)
        for name, weights in learner.networks.student.named_parameters():
            look = partial(_note_gradient, found, name)
            gradient = weights.register_post_accumulate_grad_hook(look)  # type: ignore[no-untyped-call]
            hooks.callback(gradient.remove)
        yield


def _note_output(
    found: FirstNotFinite, name: str, _: nn.Module, __: object, output: object
) -> None:
    found.note(f"the output of {name or 'the networks'}", output)


def _note_gradient(found: FirstNotFinite, name: str, weights: Tensor) -> None:
    found.note(f"the gradient of {name}", weights.grad)
