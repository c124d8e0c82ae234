"""AdamW over the student: what decays, what is clipped, and what is held still at first."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dinomm_train.config import OptimConfig
from dinomm_train.schedules import StepValues

_TOKENS = ("pos_embed", "cls_token", "reg_token")


def build_optimizer(student: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW with two groups: weights that decay, then biases, norms and (by choice) tokens.

    Learning rate and weight decay are set step by step with `set_step_values`.
    """
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for name, weights in student.named_parameters():
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


def clip_gradients(student: nn.Module, config: OptimConfig) -> Float[Tensor, ""]:
    """The Euclidean norm of all gradients together, before they were clipped in place."""
    gradients = [weights.grad for weights in student.parameters() if weights.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if not config.clip_norm:
        return norm
    if config.clip == "global":
        nn.utils.clip_grads_with_norm_(student.parameters(), config.clip_norm, norm)
    else:
        for weights in student.parameters():
            nn.utils.clip_grad_norm_(weights, config.clip_norm)
    return norm
