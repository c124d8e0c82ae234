"""What a stream comes to, and refusals before the first step."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from dinomm_train.config import SamplingConfig
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.order import SampleOrder
from dinomm_train.data.shard_file import ShardFolder
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.data.stream_terms import StreamTerms, require_room
from dinomm_train.errors import TrainError
from tests.shard_fixture import make_dataset

SHARD_BYTES = 30_720


class SmallStore(ShardFolder):
    """A folder that pretends to be a cache with room for so many shards."""

    def __init__(self, folder: Path, shards: int) -> None:
        super().__init__(folder)
        self.room = shards * SHARD_BYTES  # type: ignore[assignment]
        self.kept_in = "here"


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> StoredSplit:
    folder = make_dataset(tmp_path_factory.mktemp("d"), samples={"train": 64}, size_px=4)
    return StoredDataset.open(folder).split("train")


def order_of(split: StoredSplit, block_shards: int = 0, *, batch: int = 6) -> SampleOrder:
    shuffle = "block" if block_shards else "full"
    sampling = SamplingConfig(global_batch=batch, shuffle=shuffle, block_shards=block_shards or 1)  # type: ignore[arg-type]
    return SampleOrder.of(split, sampling)


def test_the_terms_add_up_and_are_told_in_words(split: StoredSplit) -> None:
    terms = StreamTerms.of(split, order_of(split, 2), world=3, epochs=2)
    assert terms.to_dict() == {
        "samples": 64,
        "steps_per_epoch": 10,
        "global_batch": 6,
        "ranks": 3,
        "share": 2,
        "dropped_per_epoch": 4,
        "shards": 8,
        "block_shards": 2,
        "bytes_per_epoch": 60 * 14 * 16,
        "cache_bytes": 6 * SHARD_BYTES,
    }
    said = " ".join(terms.lines())
    assert "10 steps of 6 samples, 2 on each of 3 process(es)" in said
    assert "of 64 samples the last 4" in said
    assert "2 of 8 shards at a time, about 16 samples" in said


def test_ranks_that_cannot_share_a_step_are_refused(split: StoredSplit) -> None:
    with pytest.raises(TrainError, match="6 cannot be shared evenly by 4"):
        StreamTerms.of(split, order_of(split), world=4, epochs=1)


def test_a_cache_too_small_is_refused_with_settings_that_would_do(split: StoredSplit) -> None:
    small = replace(split, store=SmallStore(split.folder, 6))
    order = order_of(small)
    terms = StreamTerms.of(small, order, world=1, epochs=3)
    with pytest.raises(TrainError, match="a full shuffle needs") as refusal:
        require_room(small, order, terms, epochs=3)
    found = re.search(r"sampling.block_shards=(\d+)", str(refusal.value))
    assert found is not None
    fitting = order_of(small, int(found[1]))
    require_room(small, fitting, StreamTerms.of(small, fitting, world=1, epochs=3), epochs=3)
    larger = order_of(small, 2 * int(found[1]))
    with pytest.raises(TrainError, match="a block shuffle needs"):
        require_room(small, larger, StreamTerms.of(small, larger, world=1, epochs=3), epochs=3)


def test_where_nothing_fits_only_a_larger_cache_is_advised(split: StoredSplit) -> None:
    tiny = replace(split, store=SmallStore(split.folder, 1))
    order = order_of(tiny)
    with pytest.raises(TrainError, match=r"give --cache-gb 0\.001$"):
        require_room(tiny, order, StreamTerms.of(tiny, order, world=1, epochs=1), epochs=1)


def test_what_the_cache_must_hold_is_said(split: StoredSplit) -> None:
    roomy = replace(split, store=SmallStore(split.folder, 9))
    order = order_of(roomy)
    said = require_room(roomy, order, StreamTerms.of(roomy, order, world=1, epochs=1), epochs=1)
    assert "shards of 0.000246 GB are needed at once, here has room for 0.000276 GB" in said
    assert "a full shuffle fetches the whole split" in said


def test_a_folder_needs_no_room(split: StoredSplit) -> None:
    order = order_of(split)
    terms = StreamTerms.of(split, order, world=1, epochs=1)
    assert "no cache is needed" in require_room(split, order, terms, epochs=1)
