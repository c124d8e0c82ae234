"""A GPU that is not there: tensors that say they lie on it and hold nothing.

No backward pass goes through it: torch's engine asks for the GPU itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dinomm_train.data import radiometry

GPU = torch.device("cuda", 0)


class WaitError(Exception):
    """The host would have waited for the GPU."""


class NeverWaits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses what makes the host wait for the GPU, or what mixes the two."""

    def __torch_dispatch__(
        self,
        func: OpOverload[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        del types
        if func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
            _require_no_wait(args, kwargs or {})
        else:
            _require_one_device(func, args)
        return func(*args, **(kwargs or {}))


def _require_no_wait(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Copies between the two go on by themselves only from and to pinned memory."""
    source = args[1] if len(args) > 1 else args[0]  # copy_(target, source), or _to_copy(source)
    target = args[0].device if len(args) > 1 else torch.device(kwargs.get("device", source.device))
    is_async = kwargs.get("non_blocking", False) and getattr(source, "was_pinned", False)
    if target.type != source.device.type and not is_async:
        raise WaitError(f"copying {tuple(source.shape)} from {source.device} to {target}")


def _require_one_device(func: OpOverload[..., Any], args: tuple[Any, ...]) -> None:
    """A number of the host may travel with a kernel's arguments, but not into an index."""
    tensors = [one for one in tree_leaves(args) if isinstance(one, Tensor)]
    is_index = "index" in func.overloadpacket.__name__
    devices = {one.device.type for one in tensors if one.ndim or is_index}
    if len(devices) > 1:
        raise WaitError(f"{func} takes tensors of the host and of the GPU")


@contextmanager
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors made in here hold nothing; bf16 is there, as on a GPU of this day."""

    def pinned(tensor: Tensor) -> Tensor:
        tensor.was_pinned = True  # type: ignore[attr-defined]
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pinned)
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_, **__: True)
    # What one test makes on its GPU is no other's.
    monkeypatch.setattr(radiometry, "_speckle_field", radiometry._speckle_field.__wrapped__)
    with FakeTensorMode():
        yield


def put_on_gpu(network: nn.Module) -> None:
    """Weights of the same shapes, there."""
    for module in network.modules():
        for name, weights in module.named_parameters(recurse=False):
            there = torch.empty(weights.shape, dtype=weights.dtype, device=GPU)
            setattr(module, name, nn.Parameter(there, requires_grad=weights.requires_grad))
        for name, numbers in module.named_buffers(recurse=False):
            there = torch.empty(numbers.shape, dtype=numbers.dtype, device=GPU)
            setattr(module, name, there)
