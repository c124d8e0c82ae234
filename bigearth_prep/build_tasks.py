"""The shard tasks of a plan, and the file in which they find their pairs."""

import logging
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq

from bigearth_prep.breadcrumbs import patches_died_at
from bigearth_prep.card import BandParameters
from bigearth_prep.plan import BuildConfig, BuildPlan
from bigearth_prep.sample import SampleRecipe
from bigearth_prep.shard_plan import ShardSpec
from bigearth_prep.shard_task import BUILD_FOLDER, PLAN_NAME, ShardTask
from bigearth_prep.shard_writers.shard_files import ShardFileNames
from bigearth_prep.whole_file import whole_file
from bigearth_prep.zarr_group import pixel_shard_name

log = logging.getLogger(__name__)


def write_plan(folder: Path, plan: BuildPlan) -> None:
    """One row group per shard, so that a task reads its own rows and nothing else."""
    with (
        whole_file(folder / BUILD_FOLDER / PLAN_NAME) as partial,
        pq.ParquetWriter(partial, plan.pairs.plan_schema) as writer,
    ):
        for pairs in plan.tables():
            writer.write_table(pairs)


def recipe_of(config: BuildConfig, parameters: dict[str, BandParameters]) -> SampleRecipe:
    """How the request wants values stored, with these normalization parameters by band name."""
    return SampleRecipe(
        bands=config.bands,
        scheme=config.scheme,
        dtype=config.stored_dtype,
        size_px=config.used_size_px,
        resampling=config.used_resampling,
        parameters=parameters,
        warp=config.warp,
        trusts_grids=config.collection.trusts_grids,
    )


def shard_tasks(
    folder: Path, config: BuildConfig, plan: BuildPlan, recipe: SampleRecipe
) -> list[ShardTask]:
    """A task for each planned shard, in stored order."""
    return [
        ShardTask(
            dataset=folder.absolute(),
            row_group=number,
            name=spec.name,
            files=_files_of(config, plan, recipe, spec),
            pairs=plan.pairs.files,
            recipe=recipe,
            fail_on_bad=config.fail_on_bad,
        )
        for number, spec in enumerate(plan.shards)
    ]


def forget_tries(tasks: Iterable[ShardTask]) -> None:
    """Count tries anew, after saying at which patches an earlier build was killed."""
    for task in tasks:
        if not task.breadcrumbs_path.exists():
            continue
        plan = pq.ParquetFile(task.dataset / BUILD_FOLDER / PLAN_NAME)
        keys = plan.read_row_group(task.row_group, columns=["key"]).column("key").to_pylist()
        for key in patches_died_at(task.breadcrumbs_path, keys)[-1:]:
            log.info("an earlier start was killed at patch %s of %s", key, task.name)
        task.breadcrumbs_path.unlink()


def _files_of(
    config: BuildConfig, plan: BuildPlan, recipe: SampleRecipe, spec: ShardSpec
) -> ShardFileNames:
    return ShardFileNames(
        tar=spec.name if config.writes_tars else None,
        zarr={
            sensor: pixel_shard_name(spec.split, sensor, spec.number)
            for sensor in recipe.sensors
            if config.writes_zarr
        },
        capacity=plan.pairs_per_shard,
    )
