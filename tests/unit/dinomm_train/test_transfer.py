"""Arrays come to the device as they are."""

import numpy as np
import pytest
import torch

from dinomm_train.transfer import to_device, to_host


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


def test_what_is_on_the_host_already_is_given_as_it_is() -> None:
    there = torch.arange(6.0)
    assert to_host(there)() is there


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_copy_from_a_gpu_is_whole_once_it_is_waited_for() -> None:
    for seed in range(20):
        there = torch.full((1 << 22,), float(seed), device="cuda").mul_(2).add_(1)
        wait = to_host(there)
        there.zero_()
        assert torch.equal(wait(), torch.full((1 << 22,), 2.0 * seed + 1))
