"""The DINO loss: the student's crops predict the teacher's assignment of another crop."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from dinomm_train.config import LossConfig
from dinomm_train.cross_entropy import Targets, paired_cross_entropy
from dinomm_train.distributed import mean_over_ranks
from dinomm_train.models.projection_head import Projections


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
        self, student: Projections, teacher: Projections, *, teacher_temperature: float
    ) -> Float[Tensor, ""]:
        """The loss of a batch; both inputs list view after view, global crops first."""
        directions = student.directions
        batch = len(teacher.directions) // self.global_count
        return paired_cross_entropy(
            directions,
            student.prototypes,
            self.student_temperature,
            Targets(
                directions=teacher.directions,
                prototypes=teacher.prototypes,
                centre=self.centre,
                temperature=teacher_temperature,
            ),
            self._pair_weights(len(directions) // batch, batch),
        )

    def _pair_weights(self, views: int, batch: int) -> Float[Tensor, "crop target"]:
        """One over the number of pairs for views of one sample that differ, else zero."""
        dtype, device = self.centre.dtype, self.centre.device
        differ = 1 - torch.eye(views, self.global_count, dtype=dtype, device=device)
        is_same_sample = torch.eye(batch, dtype=dtype, device=device)
        pairs = self.global_count * (views - 1) * batch
        return torch.kron(differ, is_same_sample) / pairs

    @torch.no_grad()
    def assign(
        self, teacher_logits: Float[Tensor, "crop prototype"], temperature: float
    ) -> Float[Tensor, "crop prototype"]:
        """The teacher's assignment of each crop: centred, sharpened, rows sum to one."""
        return ((_widen(teacher_logits) - self.centre) / temperature).softmax(dim=-1)

    @torch.no_grad()
    def update_centre(self, teacher: Projections, skipped: Float[Tensor, ""]) -> None:
        """Move the centre towards the mean of the teacher's logits over all crops of all ranks.

        Nothing moves where `skipped` is one. As logits are linear in the directions, and the
        teacher is the same on all ranks, their mean is that of the mean direction.
        """
        direction = mean_over_ranks(teacher.directions.mean(dim=0))
        moved = self.centre.lerp(linear(teacher.prototypes, direction), 1 - self.centre_momentum)
        # Not a factor of zero: the mean of a skipped step need not be finite.
        self.centre.copy_(torch.where(skipped > 0, self.centre, moved))


def _widen(logits: Tensor) -> Tensor:
    """Half-precision logits in float32: divided by 0.04 their rounding would show."""
    return logits if logits.dtype == torch.float64 else logits.float()
