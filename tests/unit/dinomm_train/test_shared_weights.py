"""Tensors that ranks share out: each gets its rows, and plain tensors stay what they are."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from dinomm_train.shared_weights import OwnWeights, load_whole, share_out, whole

RANK, WORLD = 1, 3


@pytest.fixture
def ranks() -> Iterator[None]:
    """The others are made up: no message is sent. Torch remembers who this is, so always one."""
    dist.init_process_group("fake", store=FakeStore(), rank=RANK, world_size=WORLD)
    yield
    dist.destroy_process_group()


def shared_out(tensor: torch.Tensor) -> DTensor:
    mesh = DeviceMesh("cpu", list(range(WORLD)))
    return distribute_tensor(tensor, mesh, [Shard(0)], src_data_rank=None)


@pytest.mark.parametrize("rows", [1, 3, 4, 7])
@pytest.mark.usefixtures("ranks")
def test_each_rank_gets_its_rows_of_what_it_has_whole(rows: int) -> None:
    tensor = torch.arange(2.0 * rows).view(rows, 2)
    found = share_out(tensor, shared_out(torch.zeros(rows, 2)))
    assert isinstance(found, DTensor)
    chunks = tensor.chunk(WORLD)
    expected = chunks[RANK] if len(chunks) > RANK else tensor[:0]
    assert torch.equal(found.to_local(), expected)


def network_of(weights: torch.Tensor) -> nn.Module:
    network = nn.Module()
    network.register_parameter("weights", nn.Parameter(weights))
    return network


@pytest.mark.usefixtures("ranks")
def test_moving_a_part_moves_the_network_and_gradients_reach_it() -> None:
    network = network_of(shared_out(torch.zeros(6, 2)))
    own = OwnWeights(network)
    assert own.are_parts
    network.get_parameter("weights").grad = shared_out(torch.arange(12.0).view(6, 2))
    own.take_gradients()
    torch.optim.SGD(own.named.values(), lr=1.0).step()
    moved = network.get_parameter("weights")
    assert isinstance(moved, DTensor)
    assert torch.equal(moved.to_local(), -torch.arange(12.0).view(6, 2)[2:4])


@pytest.mark.usefixtures("ranks")
def test_an_optimizer_takes_its_rows_of_a_whole_state_and_keeps_no_more() -> None:
    own = OwnWeights(network_of(shared_out(torch.zeros(6, 2))))
    optimizer = torch.optim.AdamW(own.named.values(), fused=True)
    mean = torch.arange(12.0).view(6, 2)
    statistics = {"step": torch.tensor(4.0), "exp_avg": mean, "exp_avg_sq": mean.square()}
    state = {"state": {0: statistics}, "param_groups": optimizer.state_dict()["param_groups"]}
    optimizer.load_state_dict(own.part_of(optimizer, state))
    (kept,) = optimizer.state.values()
    assert torch.equal(kept["exp_avg"], mean[2:4])
    assert kept["exp_avg"].untyped_storage().nbytes() == 4 * 4
    assert float(kept["step"]) == 4
    spread = own.state_of(optimizer)["state"][0]["exp_avg"]
    assert isinstance(spread, DTensor)
    assert spread.shape == (6, 2)


@pytest.mark.usefixtures("ranks")
def test_weights_of_another_shape_are_refused() -> None:
    network = network_of(shared_out(torch.zeros(6, 2)))
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_whole(network, {"weights": torch.zeros(5, 2)})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        load_whole(network, {"weights": torch.zeros(6, 2), "more": torch.zeros(1)})


def test_without_sharing_all_stays_as_it_is() -> None:
    network, tensor = network_of(torch.zeros(2)), torch.ones(2)
    own = OwnWeights(network)
    assert not own.are_parts
    assert own.named["weights"] is network.get_parameter("weights")
    assert whole(tensor) is share_out(tensor, tensor) is tensor
    load_whole(network, {"weights": tensor})
    assert torch.equal(network.get_parameter("weights"), tensor)
