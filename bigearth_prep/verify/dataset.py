"""Every checksum, count, offset, dtype, range and label of a dataset against its card."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bigearth_prep.card import DatasetCard
from bigearth_prep.cluster import Runner
from bigearth_prep.verify.config import VerifyConfig
from bigearth_prep.verify.stored import StoredDataset, open_stored
from bigearth_prep.verify.tables import check_tables
from bigearth_prep.verify.tar_shard import check_tar
from bigearth_prep.verify.zarr_shards import check_group, check_zarr_shards, group_of


@dataclass(frozen=True, slots=True)
class ShardCheck:
    """One shard to be read: a tar, or the shard files of one number of a group's arrays."""

    folder: Path
    split: str
    kind: Literal["tar", "zarr"]
    number: int
    config: VerifyConfig


def verify_dataset(
    dataset: Path, config: VerifyConfig, run: Runner, *, advance: Callable[[int], None]
) -> list[str]:
    """What is wrong with the dataset, a line each; empty where all is as the card says.

    Args:
        dataset: The dataset folder.
        config: How much of it is read.
        run: Runs the reading.
        advance: Told of each finished shard, for progress; there are `shard_count`.

    Raises:
        PrepError: the card or the manifest cannot be read at all.
    """
    stored = open_stored(dataset.absolute())
    problems = list(check_tables(stored))
    for split in stored.card.splits:
        if group := group_of(stored, split):
            problems += check_group(group)
    checks = list(_checks(stored, config))
    found: dict[ShardCheck, list[str]] = {}
    for check, lines in run(check_shard, checks):
        found[check] = lines
        advance(1)
    return problems + [line for check in checks for line in found[check]]


def shard_count(card: DatasetCard) -> int:
    """Shards of a dataset: tars, and shards of Zarr groups."""
    return sum(
        len(part.shards) + (part.zarr.shard_count(part.samples) if part.zarr else 0)
        for part in card.splits.values()
    )


def _checks(stored: StoredDataset, config: VerifyConfig) -> Iterator[ShardCheck]:
    for split, part in stored.card.splits.items():
        for number in range(len(part.shards)):
            yield ShardCheck(stored.folder, split, "tar", number, config)
        for number in range(part.zarr.shard_count(part.samples) if part.zarr else 0):
            yield ShardCheck(stored.folder, split, "zarr", number, config)


def check_shard(check: ShardCheck) -> tuple[ShardCheck, list[str]]:
    """The check, and what is wrong with the shard."""
    stored = open_stored(check.folder)
    if check.kind == "tar":
        shard = stored.card.splits[check.split].shards[check.number]
        return check, list(check_tar(stored, shard, check.config))
    group = group_of(stored, check.split)
    assert group is not None
    return check, list(check_zarr_shards(group, check.number, check.config))
