"""The two networks of self-distillation: a student, and a teacher that is its moving average."""

import logging
from collections.abc import Sequence
from copy import deepcopy

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor, nn

from dinomm_train.config import RunConfig
from dinomm_train.models.backbone import Backbone, build_backbone, require_divisible
from dinomm_train.models.projection_head import ProjectionHead, Projections

_log = logging.getLogger(__name__)


class Encoder(nn.Module):
    """Backbone and head: from crops of several sizes to directions among prototypes."""

    def __init__(self, backbone: Backbone, head: ProjectionHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(
        self,
        crops_by_size: Sequence[Float[Tensor, "..."]],
        depth_uniforms: Float64[np.ndarray, "branch crop"] | None = None,
    ) -> Projections:
        """Where all crops point, one size after the other in the order given.

        Args:
            crops_by_size: Crops of each size.
            depth_uniforms: Numbers that decide stochastic depth, as `Backbone` takes them.
        """
        projections: Projections = self.head(
            self.backbone.forward_sizes(crops_by_size, depth_uniforms)
        )
        return projections


class StudentTeacher(nn.Module):
    """Two encoders with the same weights at first; gradients move the student alone.

    The teacher stays in evaluation mode, so that stochastic depth is the student's alone.
    """

    def __init__(self, student: Encoder) -> None:
        super().__init__()
        self.student = student.train()
        self.teacher = deepcopy(student).eval().requires_grad_(requires_grad=False)


def build_student_teacher(config: RunConfig, *, channels: int) -> StudentTeacher:
    """A freshly initialized pair, from torch's global random state.

    Raises:
        TrainError: timm cannot build the backbone, or its patches do not divide the crops.
    """
    crops = config.views.crops
    backbone = build_backbone(config.model, channels=channels, global_px=crops.global_px)
    if crops.local_count:
        require_divisible(backbone.vit, crops.local_px)
    student = Encoder(backbone, ProjectionHead(config.head, features=backbone.width))
    pair = StudentTeacher(student)
    for encoder in (pair.student, pair.teacher):
        encoder.backbone.compute_as(config.compute)
    if not backbone.streams:
        _log.info(
            "%s is not made of plain blocks that end in a class token: crops of each size take a "
            "pass of their own",
            config.model.name,
        )
    return pair
