"""The patches that a run is looked at with: always the same ones, whole, and unchanged."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from dinomm_train.data.index import StoredDataset
from dinomm_train.data.inputs import InputScaling, to_network_input
from dinomm_train.data.stream import ShardReader
from dinomm_train.health.patches import FixedPatches, choose_held_out, spread
from tests.checkpoint_fixture import TINY_RUN
from tests.shard_fixture import make_dataset

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> StoredDataset:
    folder = tmp_path_factory.mktemp("dataset")
    return StoredDataset.open(make_dataset(folder, size_px=40, samples={"train": 9}))


def patches_of(dataset: StoredDataset, *positions: int) -> FixedPatches:
    return FixedPatches.of(dataset.split("train"), np.array(positions), dataset, TINY_RUN)


@given(candidates=st.integers(0, 300), count=st.integers(0, 400))
def test_chosen_positions_differ_and_span_the_candidates(candidates: int, count: int) -> None:
    chosen = spread(np.arange(7, 7 + candidates), count).tolist()
    assert len(chosen) == min(candidates, count)
    assert chosen == sorted(set(chosen))
    if chosen:
        assert chosen[0] == 7
        assert chosen[-1] + -(-candidates // len(chosen)) >= 6 + candidates


def test_held_out_patches_are_those_of_validation_where_there_are_any(tmp_path: Path) -> None:
    made = make_dataset(tmp_path, size_px=4, samples={"train": 9, "validation": 5})
    stored = StoredDataset.open(made)
    held_out = choose_held_out(stored, stored.split("train"), 3)
    assert (held_out.split.name, held_out.is_trained_on) == ("validation", False)
    assert held_out.candidates.tolist() == [0, 1, 2, 3, 4]


def test_without_validation_they_are_the_last_of_train(dataset: StoredDataset) -> None:
    held_out = choose_held_out(dataset, dataset.split("train"), 3)
    assert (held_out.split.name, held_out.is_trained_on) == ("train", True)
    assert held_out.candidates.tolist() == [6, 7, 8]


def test_a_patch_is_shown_whole_at_the_side_of_a_global_crop(dataset: StoredDataset) -> None:
    split, scaling = dataset.split("train"), InputScaling.of(dataset.card)
    images = to_network_input(ShardReader(split).read(np.array([2, 7])), scaling, CPU)
    antialias = TINY_RUN.views.crops.antialias
    expected = interpolate(images, size=(32, 32), mode="bicubic", antialias=antialias)
    (shown,) = patches_of(dataset, 2, 7).chunks(CPU)
    assert list(shown) == ["both", "s1", "s2"]
    assert torch.allclose(shown["both"], expected, atol=1e-5)


def test_one_sensor_alone_leaves_the_other_at_its_fill_value(dataset: StoredDataset) -> None:
    (shown,) = patches_of(dataset, 2, 7).chunks(CPU)
    fill = torch.tensor(TINY_RUN.views.sensor_drop.fill)
    assert torch.equal(shown["s1"][:, 12:], shown["both"][:, 12:])
    assert torch.equal(shown["s2"][:, :12], shown["both"][:, :12])
    assert (shown["s1"][:, :12] == fill).all()
    assert (shown["s2"][:, 12:] == fill).all()


def test_chunks_follow_one_another_in_order(
    dataset: StoredDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = patches_of(dataset, *range(9)).chunks(CPU)
    monkeypatch.setattr("dinomm_train.health.patches._CHUNK", 4)
    parts = [shown["both"] for shown in patches_of(dataset, *range(9)).chunks(CPU)]
    assert [len(part) for part in parts] == [4, 4, 1]
    assert torch.equal(torch.cat(parts), whole["both"])


@given(count=st.integers(1, 9), world=st.integers(1, 12))
def test_shares_dealt_in_turn_give_all_patches_in_order(
    dataset: StoredDataset, count: int, world: int
) -> None:
    patches = patches_of(dataset, *range(count))
    shares = [patches.share(rank, world).positions for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    dealt = np.stack(shares, axis=1).ravel()
    assert dealt[:count].tolist() == list(range(count))
