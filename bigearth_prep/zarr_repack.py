"""Zarr arrays without gaps, where rejected pairs left shard files short of what was planned.

A task cannot know how many pairs the tasks before it will reject, and shards of a Zarr array are
all of one size. So each task writes the shard file of its own number, its samples closed up; when
all stand, shard files that follow a gap are copied together anew, each by one task, beside the
old ones, and then take their places. Where nothing was rejected, nothing is copied.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import BinaryIO

from bigearth_prep.bands import Sensor
from bigearth_prep.card import ShardCard
from bigearth_prep.cluster import Runner
from bigearth_prep.errors import PrepError
from bigearth_prep.plan import BuildPlan
from bigearth_prep.sample import SampleRecipe
from bigearth_prep.shard_plan import SampleRun, dense_shards
from bigearth_prep.shard_task import BUILD_FOLDER
from bigearth_prep.shard_writers.zarr import open_zarr_shard
from bigearth_prep.zarr_group import group_name, pixel_shard_name

_STAGING_NAME = "repacked"


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelArray:
    """The array of one sensor in the group of one split, as the shard tasks left it."""

    split: str
    sensor: Sensor
    capacity: int
    """Samples that a shard file has room for."""

    sample_bytes: int
    shards: tuple[ShardCard, ...]
    """Shard files by number, some holding fewer samples than they have room for."""

    def shard_name(self, number: int) -> str:
        """Path of a shard file relative to the dataset."""
        return pixel_shard_name(self.split, self.sensor, number)


@dataclass(frozen=True, kw_only=True, slots=True)
class RepackTask:
    """One shard file to be copied together from others."""

    dataset: Path
    array: PixelArray
    number: int
    runs: tuple[SampleRun, ...]
    """The samples it shall hold, by the shard file they now are in."""

    @property
    def staged_path(self) -> Path:
        """Where the new file waits until all are made."""
        return self.dataset / BUILD_FOLDER / _STAGING_NAME / self.array.shard_name(self.number)


def pixel_arrays(
    plan: BuildPlan, recipe: SampleRecipe, files: Sequence[ShardCard]
) -> list[PixelArray]:
    """What the tasks wrote of each Zarr array, its shard files by number."""
    by_name = {file.name: file for file in files}
    arrays = []
    for split, sensor in product(plan.counts_by_split(), recipe.sensors):
        numbers = (spec.number for spec in plan.shards if spec.split == split)
        names = [pixel_shard_name(split, sensor, number) for number in numbers]
        array = PixelArray(
            split=split,
            sensor=sensor,
            capacity=plan.pairs_per_shard,
            sample_bytes=recipe.sample_bytes(sensor),
            shards=tuple(by_name[name] for name in names if name in by_name),
        )
        arrays += [array] if array.shards else []
    return arrays


def close_gaps(dataset: Path, arrays: Sequence[PixelArray], run: Runner) -> list[PixelArray]:
    """The arrays with every shard file full but the last, their files in place.

    Interrupted while files change places, the next build makes anew what changed.

    Raises:
        PrepError: a shard file ends too early.
    """
    tasks = [task for array in arrays for task in _repack_tasks(dataset, array)]
    made = {card.name: card for card in run(repack_shard, tasks)}
    for task in tasks:
        move_into_place(task)
    dense = [_settle(dataset, array, made) for array in arrays]
    for array in dense:
        if not array.shards:
            shutil.rmtree(dataset / group_name(array.split), ignore_errors=True)
    return dense


def repack_shard(task: RepackTask) -> ShardCard:
    """The card of the new shard file, once it stands in the staging folder.

    Raises:
        PrepError: a shard file to copy from ends too early.
    """
    array = task.array
    with open_zarr_shard(task.staged_path, array.capacity) as shard:
        for samples in task.runs:
            source = task.dataset / array.shard_name(samples.shard)
            with source.open("rb") as stream:
                stream.seek(samples.first * array.sample_bytes)
                for _ in range(samples.count):
                    shard.add(_read_sample(stream, array.sample_bytes))
    return shard.card(array.shard_name(task.number))


def move_into_place(task: RepackTask) -> None:
    """Put the staged file where the group has it."""
    task.staged_path.replace(task.dataset / task.array.shard_name(task.number))


def _read_sample(stream: BinaryIO, size: int) -> bytes:
    content = stream.read(size)
    if len(content) != size:
        raise PrepError(f"{stream.name} ends inside a sample; run the same command to make it anew")
    return content


def _repack_tasks(dataset: Path, array: PixelArray) -> list[RepackTask]:
    """Of the shard files that must change."""
    dense = dense_shards([shard.samples for shard in array.shards], array.capacity)
    return [
        RepackTask(dataset=dataset, array=array, number=number, runs=tuple(runs))
        for number, runs in enumerate(dense)
        if runs != [SampleRun(number, 0, array.shards[number].samples)]
    ]


def _settle(dataset: Path, array: PixelArray, made: dict[str, ShardCard]) -> PixelArray:
    """The array as it now is; shard files beyond its end are removed."""
    samples = sum(shard.samples for shard in array.shards)
    count = -(-samples // array.capacity)
    surplus = [dataset / array.shard_name(number) for number in range(count, len(array.shards))]
    for path in surplus:
        shutil.rmtree(path.parents[2])
    shards = tuple(made.get(shard.name, shard) for shard in array.shards[:count])
    return replace(array, shards=shards)
