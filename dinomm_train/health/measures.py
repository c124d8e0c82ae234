"""What assignments and features of some patches say about the networks that made them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True, kw_only=True, slots=True)
class AssignmentMeasures:
    """How a teacher spreads patches over prototypes, and how well a student follows."""

    loss: float
    """Mean cross-entropy of the student's assignment against the target's, in nats."""

    kl: float
    """Mean KL divergence of target from student, in nats; loss = kl + the target's entropy."""

    teacher_entropy: float
    """Mean entropy of the teacher's assignment of a patch, in nats; at most ln(prototypes)."""

    prototypes_in_use: int
    """Prototypes that are the teacher's first choice for some patch; never more than patches."""

    prototype_perplexity: float
    """exp of the entropy of the mean assignment: prototypes in use, weighted by how much."""


class AssignmentTally:
    """Adds up assignments of successive chunks of patches, whose logits are too large to keep."""

    def __init__(self) -> None:
        self._patches = 0
        self._cross = self._target_entropy = self._entropy = 0.0
        self._mean: Tensor | None = None
        self._chosen: set[int] = set()

    def add(
        self,
        *,
        target: Float[Tensor, "patch prototype"],
        teacher: Float[Tensor, "patch prototype"],
        student_log: Float[Tensor, "patch prototype"],
    ) -> None:
        """Count some patches.

        Args:
            target: What the student should say: the teacher's assignment, both sensors seen.
            teacher: The teacher's assignment of what the student sees.
            student_log: Logarithm of the student's assignment.
        """
        self._patches += len(target)
        self._cross += float(-(target * student_log).sum())
        self._target_entropy += float(torch.special.entr(target).sum())
        self._entropy += float(torch.special.entr(teacher).sum())
        total = teacher.sum(dim=0)
        self._mean = total if self._mean is None else self._mean + total
        self._chosen |= set(teacher.argmax(dim=1).tolist())

    def measures(self) -> AssignmentMeasures:
        """The means over all patches added so far."""
        assert self._mean is not None
        mean = self._mean / self._patches
        return AssignmentMeasures(
            loss=self._cross / self._patches,
            kl=(self._cross - self._target_entropy) / self._patches,
            teacher_entropy=self._entropy / self._patches,
            prototypes_in_use=len(self._chosen),
            prototype_perplexity=float(torch.special.entr(mean).sum().exp()),
        )


def rank_me(features: Float[Tensor, "patch feature"]) -> float:
    """The effective rank of a matrix of features, from 1 to its smaller side; NaN if not finite.

    RankMe, equations 1 and 2 of Garrido et al. (arXiv:2210.02885): exp of the entropy of the
    singular values divided by their sum. Like there, features are not centred; the paper's epsilon
    is not needed, as 0 ln 0 is 0 here.
    """
    if not bool(torch.isfinite(features).all()):
        return float("nan")
    singular = torch.linalg.svdvals(features.float())
    shares = singular / singular.sum().clamp_min(torch.finfo(singular.dtype).tiny)
    return float(torch.special.entr(shares).sum().exp())


def mean_cosine(features: Float[Tensor, "patch feature"]) -> float:
    """The mean cosine between features of different patches: one where all are alike."""
    count = len(features)
    unit = normalize(features.double(), dim=1)
    total = float(unit.sum(dim=0).square().sum() - unit.square().sum())
    return total / (count * (count - 1))


def retrieval_top1(
    queries: Float[Tensor, "patch feature"], gallery: Float[Tensor, "patch feature"]
) -> float:
    """The share of patches whose nearest row of the gallery by cosine is their own.

    Patches that tie count as a fair draw would on average, so that features that are all alike
    give 1 / patches, as chance does.
    """
    similarity = normalize(queries.double(), dim=1) @ normalize(gallery.double(), dim=1).T
    own = similarity.diagonal()[:, None]
    is_best = ~(similarity > own + _TIE).any(dim=1)
    ties = (similarity >= own - _TIE).sum(dim=1)
    return float((is_best / ties).mean())


_TIE = 1e-12
"""Cosines this close are the same up to rounding in float64."""
