"""One look at both networks: what they make of the held-out patches, per sensor state."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dinomm_train.health.measures import (
    AssignmentTally,
    mean_cosine,
    rank_me,
    retrieval_top1,
)
from dinomm_train.health.patches import FixedPatches
from dinomm_train.learner import Learner

Row = dict[str, int | float]
"""Named numbers of one step."""

MustStop = Callable[[], bool]
"""Whether all ranks agreed to end; every rank asks equally often."""


class _Seen:
    """What the networks made of the patches so far, under one sensor state."""

    def __init__(self) -> None:
        self.tally = AssignmentTally()
        self.features: list[Tensor] = []


def look_at(
    learner: Learner, patches: FixedPatches, teacher_temperature: float, must_stop: MustStop
) -> Row:
    """Named measures per sensor state, as `health/both/loss`; none where all agreed to stop.

    Weights, centre, generators and training modes are as before. The student sees the state named,
    and its target is the teacher's assignment of the same patch with both sensors.
    """
    seen = {state: _Seen() for state in patches.states}
    with torch.no_grad(), at_rest(learner.networks.student):
        for shown in patches.chunks(learner.ranks.device):
            if must_stop():
                return {}
            _tally_chunk(seen, shown, learner, teacher_temperature)
    features = {state: torch.cat(one.features) for state, one in seen.items()}
    row: Row = {}
    for state, one in seen.items():
        row |= _named(state, dataclasses.asdict(one.tally.measures()))
        row |= _named(
            state,
            {"rankme": rank_me(features[state]), "mean_cosine": mean_cosine(features[state])},
        )
    return row | _retrieval(features)


@contextmanager
def at_rest(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode, in which it draws no random number; afterwards as before."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def teacher_features(
    learner: Learner, images: Float[Tensor, "patch channel side side"]
) -> Float[Tensor, "patch feature"]:
    """The teacher's backbone features in float32, in the run's arithmetic."""
    with arithmetic(learner):
        features: Tensor = learner.networks.teacher.backbone(images)
    return features.float()


def arithmetic(learner: Learner) -> torch.autocast:
    """The precision in which the run's networks compute."""
    device = learner.ranks.device.type
    return torch.autocast(device, dtype=torch.bfloat16, enabled=learner.half_precision)


def _tally_chunk(
    seen: Mapping[str, _Seen],
    shown: Mapping[str, Float[Tensor, "..."]],
    learner: Learner,
    teacher_temperature: float,
) -> None:
    networks, target = learner.networks, None
    for state, images in shown.items():
        features = teacher_features(learner, images)
        with arithmetic(learner):
            teacher_logits = networks.teacher.head(features).logits()
            student_logits = networks.student((images,)).logits()
        assigned = learner.loss.assign(teacher_logits, teacher_temperature)
        target = assigned if target is None else target
        student = student_logits.float() / learner.loss.student_temperature
        seen[state].tally.add(
            target=target, teacher=assigned, student_log=student.log_softmax(dim=-1)
        )
        seen[state].features.append(features.cpu())


def _retrieval(features: Mapping[str, Float[Tensor, "patch feature"]]) -> Row:
    if "s1" not in features:
        return {}
    s1, s2 = features["s1"], features["s2"]
    return {
        "health/retrieval_s1_to_s2": retrieval_top1(s1, s2),
        "health/retrieval_s2_to_s1": retrieval_top1(s2, s1),
    }


def _named(state: str, measures: Mapping[str, int | float]) -> Row:
    return {f"health/{state}/{name}": value for name, value in measures.items()}
