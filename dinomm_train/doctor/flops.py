"""Floating-point operations of a training step, counted on the networks themselves."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from dinomm_train.config import RunConfig
from dinomm_train.models.student_teacher import build_student_teacher


def flops_per_sample(config: RunConfig, *, channels: int) -> int:
    """Operations of both networks for one sample: student forward and backward, teacher forward.

    A multiplication and an addition count as two. Nothing is computed: the networks have shapes
    alone. The optimizer, the loss and what is no matrix product are left out; they are small.
    """
    crops = config.views.crops
    with torch.device("meta"):
        networks = build_student_teacher(config, channels=channels)
        whole = torch.zeros(crops.global_count, channels, crops.global_px, crops.global_px)
        local = torch.zeros(crops.local_count, channels, crops.local_px, crops.local_px)
    seen = (whole, local) if crops.local_count else (whole,)
    with FlopCounterMode(display=False) as counter:
        with torch.no_grad():
            networks.teacher((whole,))
        networks.student(seen).sum().backward()
    return int(counter.get_total_flops())
