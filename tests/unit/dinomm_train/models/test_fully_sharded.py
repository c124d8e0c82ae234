"""Which networks can be shared out over ranks."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dinomm_train.errors import TrainError
from dinomm_train.models.fully_sharded import _is_linear, shard_networks
from dinomm_train.models.student_teacher import build_student_teacher
from tests.checkpoint_fixture import TINY_RUN


def test_a_network_of_other_blocks_is_refused() -> None:
    other = replace(TINY_RUN, model=replace(TINY_RUN.model, name="vit_small_patch16_18x2_224"))
    networks = build_student_teacher(other, channels=3)
    with pytest.raises(TrainError, match=r"choose another model\.name"):
        shard_networks(networks, torch.device("cpu"), half_precision=False)


def test_only_layers_that_autocast_rounds_are_gathered_in_bf16() -> None:
    assert _is_linear(nn.Sequential(nn.Linear(2, 2), nn.GELU()))
    assert not _is_linear(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))
