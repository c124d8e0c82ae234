"""Arrays come to the device as they are."""

import numpy as np
import pytest
import torch

from dinomm_train.data.transfer import to_device


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_, np.uint8])
def test_values_and_type_are_those_of_the_array(dtype: type[np.generic]) -> None:
    array = np.array([[0, 1], [2, 3]]).astype(dtype)
    found = to_device(array, torch.device("cpu"))
    assert found.numpy().dtype == array.dtype
    assert np.array_equal(found.numpy(), array)


def test_a_copy_to_a_device_is_asked_for_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def note(tensor: torch.Tensor, _: torch.device, *, non_blocking: bool = False) -> torch.Tensor:
        asked.append(non_blocking)
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", note)
    to_device(np.zeros(2), torch.device("cpu"))
    assert asked == [True]
