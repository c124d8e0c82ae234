"""AdamW over the student: what decays, what is clipped, and what is held still at first."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dinomm_train.config import OptimConfig
from dinomm_train.distributed import norms_over_ranks
from dinomm_train.schedules import StepValues

_NORM_FLOOR = 1e-6
"""Added to norms before dividing, as in torch's and the published clipping."""

_TOKENS = ("pos_embed", "cls_token", "reg_token")


def build_optimizer(student: Mapping[str, nn.Parameter], config: OptimConfig) -> torch.optim.AdamW:
    """AdamW with two groups: weights that decay, then biases, norms and (by choice) tokens.

    The weights are given by their names in the network, or a rank's parts of them. Learning rate
    and weight decay are set step by step with `set_step_values`.
    """
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for name, weights in student.items():
        is_token = name.rpartition(".")[2] in _TOKENS
        decays = weights.ndim > 1 and (config.decay_tokens or not is_token)
        groups[0 if decays else 1].append(weights)
    named: list[dict[str, Any]] = [
        {"params": groups[0], "decays": True},
        {"params": groups[1], "decays": False},
    ]
    return torch.optim.AdamW(named, lr=0.0, betas=config.betas, fused=True)


def set_step_values(optimizer: torch.optim.Optimizer, values: StepValues) -> None:
    """Give the optimizer this step's learning rate and weight decay."""
    for group in optimizer.param_groups:
        group["lr"] = values.lr
        group["weight_decay"] = values.weight_decay if group["decays"] else 0.0


def drop_gradients(module: nn.Module) -> None:
    """Leave no gradient on a module, so that the next step keeps it as it is."""
    for weights in module.parameters():
        weights.grad = None


def clip_gradients(
    parameters: Sequence[nn.Parameter], config: OptimConfig, *, are_parts: bool = False
) -> Float[Tensor, ""]:
    """The Euclidean norm of all gradients together, before they were clipped in place.

    Where the parameters are a rank's parts of tensors (`are_parts`), norms are of the tensors.
    """
    gradients = [weights.grad for weights in parameters if weights.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients))  # noqa: SLF001 (private by name only)
    norms = norms_over_ranks(norms) if are_parts else norms
    total: Tensor = torch.linalg.vector_norm(norms)
    if not config.clip_norm:
        return total
    clipped = norms if config.clip == "per_tensor" else total
    factors = (config.clip_norm / (clipped + _NORM_FLOOR)).clamp(max=1.0)
    by_tensor = factors.unbind() if factors.ndim else factors
    torch._foreach_mul_(gradients, by_tensor)
    return total


def take_step(optimizer: torch.optim.AdamW | torch.optim.SGD, skipped: Float[Tensor, ""]) -> None:
    """Let a fused optimizer step, or leave all as it is where `skipped` is one.

    The flag is read on the device, as for gradients that a loss scaler finds infinite.
    """
    optimizer.found_inf = skipped  # type: ignore[union-attr]
    optimizer.step()


class MovingAverage:
    """Lets the teacher follow the student: teacher = momentum x teacher + (1 - momentum) x student.

    This is SGD on the teacher, with rate 1 - momentum, the difference to the student as the
    gradient: minus the student's weight, plus decay of the teacher's own. Written so, one fused
    pass over all weights gives the bits of `lerp` and can be skipped on the device.
    """

    def __init__(self, teacher: Iterable[nn.Parameter], student: Iterable[nn.Parameter]) -> None:
        self._teacher = list(teacher)
        self._student = [weights.detach() for weights in student]
        self._optimizer = torch.optim.SGD(
            self._teacher, weight_decay=1.0, maximize=True, fused=True
        )

    def follow(self, momentum: float, skipped: Float[Tensor, ""]) -> None:
        """Move each of the teacher's weights, unless `skipped` is one."""
        for mine, leading in zip(self._teacher, self._student, strict=True):
            mine.grad = leading
        self._optimizer.param_groups[0]["lr"] = 1 - momentum
        take_step(self._optimizer, skipped)
        self._optimizer.zero_grad()
