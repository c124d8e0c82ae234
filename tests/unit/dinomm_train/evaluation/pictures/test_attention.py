import dataclasses

import numpy as np
import pytest
import torch

from dinomm_train.data.index import StoredDataset
from dinomm_train.errors import TrainError
from dinomm_train.evaluation.config import ExtractionConfig
from dinomm_train.evaluation.pictures.attention import (
    draw_attention,
    find_patch,
    look_at_patch,
    shared_components,
)
from dinomm_train.models.frozen import expected_input, untrained
from tests.checkpoint_fixture import TINY_MODEL, TINY_RUN
from tests.shard_fixture import make_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> StoredDataset:
    samples = {"train": 2, "validation": 0, "test": 3}
    return StoredDataset.open(make_dataset(tmp_path_factory.mktemp("dataset"), samples=samples))


def test_a_look_holds_the_patch_and_a_map_per_sensor_set(dataset: StoredDataset) -> None:
    expects = expected_input(dataset.card, TINY_RUN.views)
    frozen = untrained(TINY_MODEL, expects, seed=0, origin="")
    key = dataset.split("test").key(2)
    look = look_at_patch(frozen, dataset, key, ExtractionConfig())
    assert list(look.attention) == ["s1+s2", "s2", "s1"]
    assert all(one.shape == (2, 4, 4) for one in look.attention.values())
    assert not np.allclose(look.attention["s2"], look.attention["s1"])
    assert look.optical is not None
    assert look.optical.shape == (32, 32, 3)
    assert (look.optical.min(), look.optical.max()) == (0, 1)
    figure = draw_attention(look)
    figure.canvas.draw()
    titles = [panel.get_title() for panel in figure.axes]
    assert "attention, radar alone" in titles
    assert "tokens, optical alone" in titles
    bare = dataclasses.replace(look, optical=None, radar=None)
    draw_attention(bare).canvas.draw()


def test_a_patch_is_found_in_whichever_split_holds_it(dataset: StoredDataset) -> None:
    for name in ("train", "test"):
        split, position = find_patch(dataset, dataset.split(name).key(1))
        assert (split.name, position) == (name, 1)
    with pytest.raises(TrainError, match=r"no patch 'x'; its manifest\.parquet lists the keys"):
        find_patch(dataset, "x")


def test_the_same_token_has_the_same_colour_under_every_sensor_set() -> None:
    tokens = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
    found = shared_components({"s2": tokens, "s1": tokens.flip(0)})
    colours = found["s2"].reshape(16, 3)
    np.testing.assert_allclose(colours, found["s1"].reshape(16, 3)[::-1], atol=1e-6)
    assert colours.min() >= 0
    assert colours.max() <= 1
    assert len(np.unique(colours.round(4), axis=0)) == 16
