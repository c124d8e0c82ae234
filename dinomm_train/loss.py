"""The DINO loss: the student's crops predict the teacher's assignment of another crop."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dinomm_train.config import LossConfig
from dinomm_train.distributed import mean_over_ranks


class DinoLoss(nn.Module):
    """Cross-entropy between assignments to prototypes, teacher centred and sharpened.

    Caron et al. (arXiv:2104.14294), equation 3 with section 3.1's centre c and temperatures:
    mean over teacher crops t and student crops v != t of -sum_k q_t log p_v, with
    q = softmax((teacher - c) / teacher_temperature), p = softmax(student / student_temperature).
    """

    centre: Float[Tensor, " prototype"]

    def __init__(self, config: LossConfig, *, prototypes: int, global_count: int) -> None:
        super().__init__()
        self.student_temperature = config.student_temperature
        self.centre_momentum = config.centre_momentum
        self.global_count = global_count
        self.register_buffer("centre", torch.zeros(prototypes))

    def forward(
        self,
        student_logits: Float[Tensor, "student_crop prototype"],
        teacher_logits: Float[Tensor, "teacher_crop prototype"],
        *,
        teacher_temperature: float,
    ) -> Float[Tensor, ""]:
        """The loss of a batch; both inputs list view after view, global crops first.

        As a row of q sums to one, -sum_k q log p = logsumexp(z) - q.z for z the student's scaled
        logits, so that no log-probabilities are stored and a view meets all its q's at once.
        """
        batch = len(teacher_logits) // self.global_count
        student = _by_view(student_logits, batch) / self.student_temperature
        targets = _by_view(self.assign(teacher_logits, teacher_temperature), batch)
        view_count = len(student)
        # A local crop meets every teacher crop, a global one all but itself.
        meetings = torch.full((view_count, 1), self.global_count, device=student.device)
        meetings[: self.global_count] -= 1
        spread = (meetings * student.logsumexp(dim=-1)).sum()
        agreement = (student.sum(dim=0) * targets.sum(dim=0)).sum()
        with_itself = (student[: self.global_count] * targets).sum()
        pairs = self.global_count * (view_count - 1)
        loss: Tensor = (spread - agreement + with_itself) / (pairs * batch)
        return loss

    @torch.no_grad()
    def assign(
        self, teacher_logits: Float[Tensor, "crop prototype"], temperature: float
    ) -> Float[Tensor, "crop prototype"]:
        """The teacher's assignment of each crop: centred, sharpened, rows sum to one."""
        return ((_widen(teacher_logits) - self.centre) / temperature).softmax(dim=-1)

    @torch.no_grad()
    def update_centre(
        self, teacher_logits: Float[Tensor, "crop prototype"], skipped: Float[Tensor, ""]
    ) -> None:
        """Move the centre towards the mean of these logits over all ranks, unless `skipped`."""
        mean = mean_over_ranks(_widen(teacher_logits).mean(dim=0))
        moved = self.centre.lerp(mean, 1 - self.centre_momentum)
        # Not a factor of zero: the mean of a skipped step need not be finite.
        self.centre.copy_(torch.where(skipped > 0, self.centre, moved))


def _by_view(logits: Tensor, batch: int) -> Float[Tensor, "view sample prototype"]:
    return _widen(logits).reshape(-1, batch, logits.shape[-1])


def _widen(logits: Tensor) -> Tensor:
    """Half-precision logits in float32: divided by 0.04 their rounding would show."""
    return logits if logits.dtype == torch.float64 else logits.float()
