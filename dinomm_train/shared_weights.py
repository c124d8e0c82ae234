"""Tensors that ranks share out by rows: parts for a rank to work on, and the whole again."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_shared_out(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether it is torch's `DTensor`, which is imported (half a second) where it is needed."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """The tensor with the parts of all ranks; each of them asks for it at the same time."""
    return tensor.full_tensor() if is_shared_out(tensor) else tensor


def share_out(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, which every rank has, shared out as another is; itself where that is not."""
    if not is_shared_out(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    # No source rank: each takes its part of what it has itself.
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def load_whole(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a network these weights, which are whole, or its part of them.

    Raises:
        RuntimeError: they are not the network's, by name or shape.
    """
    own = network.state_dict()
    network.load_state_dict(
        {name: share_out(one, own[name]) if name in own else one for name, one in state.items()}
    )


def contribute(state: Mapping[str, Any]) -> None:
    """Give other ranks the parts of all tensors in nested dictionaries and lists.

    The rank that asks for the whole of each walks through the same state in the same order.
    """
    for tensor in _tensors_in(state):
        whole(tensor)


def _tensors_in(value: Any) -> Iterator[Tensor]:  # noqa: ANN401 (any plain value)
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors_in(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors_in(one)


class OwnWeights:
    """The weights of a network that this rank moves: all of each, or its part of each.

    Parts share memory with the network, so that what moves them moves it.
    """

    def __init__(self, network: nn.Module) -> None:
        self._whole = dict(network.named_parameters())
        self.named = {name: _own(weights) for name, weights in self._whole.items()}
        """This rank's parts, by the names that the network gives its weights."""
        self.are_parts = any(map(is_shared_out, self._whole.values()))
        """Whether other ranks hold the rest."""

    def take_gradients(self) -> None:
        """Give each part its part of the gradient that the network's weight has."""
        for name, own in self.named.items():
            if own is not (weights := self._whole[name]):
                own.grad = None if weights.grad is None else _local(weights.grad)

    def state_of(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The state of an optimizer of these parts, named and laid out as one of all weights."""
        return self._each_statistic(optimizer, optimizer.state_dict(), _spread)

    def part_of(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """What an optimizer of these parts loads: its part of a state with whole tensors."""
        return self._each_statistic(optimizer, state, _narrow)

    def _each_statistic(
        self,
        optimizer: torch.optim.Optimizer,
        state: dict[str, Any],
        change: Callable[[Tensor, Tensor], Tensor],
    ) -> dict[str, Any]:
        whole_of = {id(own): self._whole[name] for name, own in self.named.items()}
        order = [whole_of[id(own)] for group in optimizer.param_groups for own in group["params"]]
        # A step count is of no weight's shape: it belongs to all of the weight.
        return state | {
            "state": {
                index: {
                    name: change(one, order[index]) if one.ndim else one
                    for name, one in statistics.items()
                }
                for index, statistics in state["state"].items()
            }
        }


def _own(weights: nn.Parameter) -> nn.Parameter:
    if not is_shared_out(weights):
        return weights
    return nn.Parameter(_local(weights), requires_grad=weights.requires_grad)


def _local(tensor: Tensor) -> Tensor:
    assert is_shared_out(tensor)
    part: Tensor = tensor.to_local().detach()
    return part


def _spread(part: Tensor, like: Tensor) -> Tensor:
    if not is_shared_out(like):
        return part
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
    )


def _narrow(tensor: Tensor, like: Tensor) -> Tensor:
    if not is_shared_out(like):
        return tensor
    # A copy, so that the whole does not stay in memory behind its part.
    return _local(share_out(tensor, like)).clone()
