"""Between host and device without waiting for it, and the wait itself."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor


def to_device(
    array: Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."], device: torch.device
) -> Shaped[Tensor, "..."]:
    """The host's array as a tensor there; on a CPU it shares the array's memory.

    A copy to a GPU from ordinary memory waits until the GPU has done all that it was given, also
    where it is asked not to. So it starts from a pinned copy, which torch keeps until it is done.
    """
    tensor = torch.as_tensor(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def to_host(tensor: Shaped[Tensor, "..."]) -> Callable[[], Shaped[Tensor, "..."]]:
    """A GPU's tensor on its way to the host; the call waits for it, and for nothing asked later.

    A blocking copy would keep the host from giving the GPU its next work. What is on the host
    already stays what it is.
    """
    copy = tensor.to("cpu", non_blocking=True)
    if tensor.device.type != "cuda":
        return lambda: copy
    is_copied = torch.cuda.current_stream(tensor.device).record_event()

    def wait() -> Tensor:
        is_copied.synchronize()
        return copy

    return wait


def wait_for_device(device: torch.device) -> None:
    """Return when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
