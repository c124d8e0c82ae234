"""From the host to the device without waiting for it, and the wait itself."""

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor


def to_device(array: Shaped[np.ndarray, "..."], device: torch.device) -> Shaped[Tensor, "..."]:
    """The array as a tensor there; on a CPU it shares the array's memory.

    A blocking copy to a GPU first waits until the GPU has done all that was asked of it before.
    """
    return torch.from_numpy(array).to(device, non_blocking=True)


def wait_for_device(device: torch.device) -> None:
    """Return when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
