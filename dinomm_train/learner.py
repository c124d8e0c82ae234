"""One step of learning: both networks, the loss, the optimizer, and all that a checkpoint holds."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from dinomm_train.config import Precision, RunConfig
from dinomm_train.data.views import Views
from dinomm_train.distributed import Ranks, mean_over_ranks
from dinomm_train.errors import TrainError
from dinomm_train.loss import DinoLoss
from dinomm_train.models.student_teacher import Encoder, build_student_teacher
from dinomm_train.optim import build_optimizer, clip_gradients, drop_gradients, set_step_values
from dinomm_train.schedules import StepValues


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """What one step measured, before it moved anything."""

    loss: Float[Tensor, ""]
    """Mean over all ranks."""

    gradient_norm: Float[Tensor, ""]
    """Of all gradients together, the last layer's only where it moves, before clipping."""


class Learner:
    """Student, teacher, loss and optimizer of one rank; ranks that start alike stay alike."""

    def __init__(self, config: RunConfig, ranks: Ranks, *, channels: int) -> None:
        torch.manual_seed(config.sampling.seed)
        self.config = config
        self.ranks = ranks
        self.networks = build_student_teacher(config, channels=channels).to(ranks.device)
        self.loss = DinoLoss(
            config.loss,
            prototypes=config.head.prototypes,
            global_count=config.views.crops.global_count,
        ).to(ranks.device)
        self.optimizer = build_optimizer(self.networks.student, config.optim)
        self.half_precision = choose_half_precision(config.sampling.precision, ranks.device)
        self._student = _connect(self.networks.student, ranks)

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """All that changes from step to step."""
        return {
            "student": self.networks.student.state_dict(),
            "teacher": self.networks.teacher.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, dict[str, Any]]) -> None:
        """Go on from what `state_dict` gave."""
        self.networks.student.load_state_dict(state["student"])
        self.networks.teacher.load_state_dict(state["teacher"])
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])

    def step(self, views: Views, values: StepValues, step: int) -> StepReport:
        """What the step measured; both networks, the centre and the optimizer have moved.

        Raises:
            TrainError: the loss or the gradient is not finite; nothing has moved.
        """
        self._seed_stochastic_depth(step)
        set_step_values(self.optimizer, values)
        student_logits, teacher_logits = self._logits(views)
        loss: Tensor = self.loss(
            student_logits, teacher_logits, teacher_temperature=values.teacher_temperature
        )
        # The mean over ranks: when one has lost its way, all stop together.
        mean_loss = mean_over_ranks(loss.detach())
        _require_finite(mean_loss, step)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if values.last_layer_frozen:
            drop_gradients(self.networks.student.head.prototypes)
        gradient_norm = clip_gradients(self.networks.student, self.config.optim)
        _require_finite(gradient_norm, step, what="gradient norm")
        self.optimizer.step()
        self.loss.update_centre(teacher_logits)
        self.networks.update_teacher(values.teacher_momentum)
        return StepReport(loss=mean_loss, gradient_norm=gradient_norm)

    def _logits(self, views: Views) -> tuple[Tensor, Tensor]:
        device = self.ranks.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.half_precision):
            with torch.no_grad():
                teacher_logits = self.networks.teacher((views.teacher_crops,))
            student_logits = self._student(views.student_crops)
        return student_logits, teacher_logits

    def _seed_stochastic_depth(self, step: int) -> None:
        # Torch's generator is set anew for each step, so that a checkpoint need not hold it.
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


def _connect(student: Encoder, ranks: Ranks) -> Encoder | DistributedDataParallel:
    """The student, its gradients averaged over the ranks where there are several."""
    if ranks.world == 1:
        return student
    devices = None if ranks.device.type == "cpu" else [ranks.device]
    return DistributedDataParallel(student, device_ids=devices)


def _require_finite(measure: Tensor, step: int, *, what: str = "loss") -> None:
    value = float(measure)
    if not math.isfinite(value):
        raise TrainError(
            f"the {what} of step {step} is {value}, so it was not taken; start again in another "
            "--out with a lower schedule.lr, or with --precision fp32"
        )
