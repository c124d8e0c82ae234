"""One step of learning: both networks, the loss, the optimizer, and all that a checkpoint holds."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from dinomm_train.config import ComputeConfig, Precision, RunConfig
from dinomm_train.data.draws import Purpose, view_uniforms
from dinomm_train.data.views import Views
from dinomm_train.distributed import Ranks, mean_over_ranks
from dinomm_train.errors import TrainError
from dinomm_train.loss import DinoLoss
from dinomm_train.models.projection_head import Projections
from dinomm_train.models.student_teacher import Encoder, build_student_teacher
from dinomm_train.optim import (
    MovingAverage,
    build_optimizer,
    clip_gradients,
    drop_gradients,
    set_step_values,
    take_step,
)
from dinomm_train.schedules import StepValues
from dinomm_train.shared_weights import OwnWeights, load_whole


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """What one step measured, before it moved anything."""

    loss: Float[Tensor, ""]
    """Mean over all ranks."""

    gradient_norm: Float[Tensor, ""]
    """Of all gradients together, the last layer's only where it moves, before clipping."""

    skipped: Float[Tensor, ""]
    """One where a loss or gradient was not finite, so that this step moved nothing; else zero."""


class Learner:
    """Student, teacher, loss and optimizer of one rank; ranks that start alike stay alike.

    Raises:
        TrainError: the networks cannot be built, or not be shared out over the ranks as configured.
    """

    def __init__(self, config: RunConfig, ranks: Ranks, *, channels: int) -> None:
        require_shareable(config.compute, ranks.world)
        torch.manual_seed(config.sampling.seed)
        self.config = config
        self.ranks = ranks
        self.half_precision = choose_half_precision(config.sampling.precision, ranks.device)
        self.networks = build_student_teacher(config, channels=channels)
        if config.compute.sharding == "fsdp":
            from dinomm_train.models.fully_sharded import shard_networks

            shard_networks(
                self.networks,
                ranks.device,
                half_precision=self.half_precision,
                compile_layers=config.compute.compile,
            )
        else:
            self.networks.to(ranks.device)
        self.loss = DinoLoss(
            config.loss,
            prototypes=config.head.prototypes,
            global_count=config.views.crops.global_count,
        ).to(ranks.device)
        self._weights = OwnWeights(self.networks.student)
        self.optimizer = build_optimizer(self._weights.named, config.optim)
        followers = OwnWeights(self.networks.teacher).named
        self.average = MovingAverage(followers.values(), self._weights.named.values())
        self.skipped_in_row, self.skipped_total = torch.zeros(
            2, dtype=torch.int64, device=ranks.device
        )
        self._student = _connect(self.networks.student, ranks, config.compute)

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """All that changes from step to step, in the tensors of this rank: whole or shared out."""
        return {
            "student": self.networks.student.state_dict(),
            "teacher": self.networks.teacher.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self._weights.state_of(self.optimizer),
            "skips": {"in_row": self.skipped_in_row, "total": self.skipped_total},
        }

    def load_state_dict(self, state: dict[str, dict[str, Any]]) -> None:
        """Go on from what `state_dict` gave, its tensors whole."""
        load_whole(self.networks.student, state["student"])
        load_whole(self.networks.teacher, state["teacher"])
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(self._weights.part_of(self.optimizer, state["optimizer"]))
        self.skipped_in_row.copy_(state["skips"]["in_row"])
        self.skipped_total.copy_(state["skips"]["total"])

    def step(self, views: Views, values: StepValues, step: int) -> StepReport:
        """What the step measured; both networks, the centre and the optimizer have moved.

        Where the loss or a gradient of any rank is not finite, nothing moves on any rank, and the
        step is counted as skipped. The host waits for no device here.
        """
        self._seed_global_state(step)
        set_step_values(self.optimizer, values)
        self.networks.student.zero_grad()
        loss, teacher = self._accumulate(views, values.teacher_temperature)
        if values.last_layer_frozen:
            drop_gradients(self.networks.student.head.prototypes)
        self._weights.take_gradients()
        gradient_norm = clip_gradients(
            list(self._weights.named.values()),
            self.config.optim,
            are_parts=self._weights.are_parts,
        )
        report = _agree(loss, gradient_norm)
        self._count(report.skipped)
        take_step(self.optimizer, report.skipped)
        self.loss.update_centre(teacher, report.skipped)
        self.average.follow(values.teacher_momentum, report.skipped)
        return report

    def _accumulate(
        self, views: Views, teacher_temperature: float
    ) -> tuple[Float[Tensor, ""], Projections]:
        """The loss of the batch, its gradients left with the weights, and the teacher's part of it.

        Samples go through `compute.micro_batch` at a time. The loss is a mean over samples, so
        each part adds its share. Ranks exchange gradients once, with the last part, or with each
        where they share out the networks: a rank then never holds whole gradients. The centre used
        is that of the steps before, and what it moves to is of the whole batch.
        """
        samples = len(views.key.sample_ids)
        parts = list(views.split(self.config.compute.micro_batch or samples))
        losses: list[Tensor] = []
        teachers: list[Projections] = []
        for part in parts:
            with self._exchange_gradients(is_last=part is parts[-1]):
                loss, teacher = self._loss(part, teacher_temperature)
                share = loss * (len(part.key.sample_ids) / samples)
                share.backward()  # type: ignore[no-untyped-call]
            losses.append(share.detach())
            # The same prototypes for all parts; one copy of them is enough.
            one_copy = teachers[0].prototypes if teachers else teacher.prototypes
            teachers.append(Projections(teacher.directions, one_copy))
        directions = torch.cat([teacher.directions for teacher in teachers])
        whole = Projections(directions=directions, prototypes=teachers[0].prototypes)
        return torch.stack(losses).sum(), whole

    def _loss(
        self, views: Views, teacher_temperature: float
    ) -> tuple[Float[Tensor, ""], Projections]:
        """The mean over these samples, and where the teacher sees them."""
        device = self.ranks.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.half_precision):
            with torch.no_grad():
                teacher: Projections = self.networks.teacher((views.teacher_crops,))
            student = self._student(views.student_crops, self._depth_uniforms(views))
            loss: Tensor = self.loss(student, teacher, teacher_temperature=teacher_temperature)
        return loss, teacher

    def _depth_uniforms(self, views: Views) -> Float64[np.ndarray, "branch crop"]:
        """One number per crop and residual branch, which neither ranks nor parts change."""
        draws = self.networks.student.backbone.branch_count
        uniforms = view_uniforms(
            views.key, Purpose.DEPTH, views=range(views.view_count), draws=draws
        )
        return uniforms.reshape(len(views.states), draws).T

    def _exchange_gradients(self, *, is_last: bool) -> AbstractContextManager[None]:
        if is_last or not isinstance(self._student, DistributedDataParallel):
            return nullcontext()
        return self._student.no_sync()

    def _count(self, skipped: Float[Tensor, ""]) -> None:
        self.skipped_in_row.add_(1).mul_(skipped.long())
        self.skipped_total.add_(skipped.long())

    def _seed_global_state(self, step: int) -> None:
        # For networks that draw by themselves; anew for each step, so that no checkpoint holds it.
        name = (self.config.sampling.seed, step, self.ranks.rank)
        torch.manual_seed(int(np.random.SeedSequence(name).generate_state(1, np.uint64)[0]))


def choose_half_precision(precision: Precision, device: torch.device) -> bool:
    """Whether forward passes run in bf16; `auto` takes it on GPUs that have it.

    Raises:
        TrainError: bf16 was asked for on a GPU without it.
    """
    if precision == "fp32" or (precision == "auto" and device.type == "cpu"):
        return False
    supported = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and not supported:
        raise TrainError("--precision bf16: this GPU has no bf16 arithmetic; use --precision fp32")
    return supported


def require_shareable(config: ComputeConfig, world: int) -> None:
    """Return nothing where so many ranks can share out the networks as configured.

    Raises:
        TrainError: they cannot.
    """
    if config.sharding == "fsdp" and world == 1:
        raise TrainError(
            "compute.sharding 'fsdp' shares the networks out over several processes, and there is "
            "one; start it with torchrun or srun, or give --set compute.sharding=none"
        )


def without_sharding(config: RunConfig) -> RunConfig:
    """The same run for a process on its own, which holds the networks whole."""
    return replace(config, compute=replace(config.compute, sharding="none"))


def _connect(
    student: Encoder, ranks: Ranks, config: ComputeConfig
) -> Encoder | DistributedDataParallel:
    """The student, its gradients averaged over the ranks where there are several."""
    if ranks.world == 1 or config.sharding == "fsdp":
        return student
    devices = None if ranks.device.type == "cpu" else [ranks.device]
    return DistributedDataParallel(student, device_ids=devices, gradient_as_bucket_view=True)


def _agree(loss: Float[Tensor, ""], gradient_norm: Float[Tensor, ""]) -> StepReport:
    """The measures as all ranks see them: where one has lost its way, all skip the step."""
    is_lost = ~(loss.isfinite() & gradient_norm.isfinite())
    mean_loss, lost_share = mean_over_ranks(torch.stack([loss, is_lost.to(loss.dtype)]))
    skipped = (lost_share > 0).float()
    return StepReport(loss=mean_loss, gradient_norm=gradient_norm, skipped=skipped)
