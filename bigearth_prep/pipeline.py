"""A build from request to dataset: plan, statistics, shards, tables, card."""

import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bigearth_prep.bands import SENSORS, bands_of
from bigearth_prep.build_card import card_of_build, split_cards
from bigearth_prep.card import (
    CARD_NAME,
    REJECTED_NAME,
    BandParameters,
    DatasetCard,
    ShardCard,
    read_card,
)
from bigearth_prep.cluster import ClusterConfig, Runner, open_cluster
from bigearth_prep.errors import PrepError
from bigearth_prep.manifest import read_manifest, write_tables
from bigearth_prep.normalize import parameters_of
from bigearth_prep.output_folder import claim_folder, publish_folder
from bigearth_prep.plan import BuildConfig, BuildPlan, plan_build
from bigearth_prep.sample import SampleRecipe
from bigearth_prep.shard_plan import ShardSpec
from bigearth_prep.shard_task import (
    BUILD_FOLDER,
    PLAN_NAME,
    ShardTask,
    count_values,
    make_shard,
    read_records,
)
from bigearth_prep.shard_writers.shard_files import ShardFileNames
from bigearth_prep.statistics import (
    StatisticsTable,
    empty_counts,
    published_statistics,
    read_statistics,
    require_bands,
    summarize,
    write_statistics,
)
from bigearth_prep.terminal import counts_line, progress_bar
from bigearth_prep.whole_file import whole_file, write_bytes, write_text
from bigearth_prep.zarr_group import group_files, pixel_shard_name
from bigearth_prep.zarr_repack import PixelArray, close_gaps

log = logging.getLogger(__name__)

_STATISTICS_NAME = "statistics.json"


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """What a build has left behind."""

    dataset: Path
    card: DatasetCard
    rejected: dict[str, int]
    """Rows of `rejected.parquet` by reason."""

    was_complete: bool
    """The same dataset stood already, and nothing was done."""


def build_dataset(
    config: BuildConfig, out: Path, cluster: ClusterConfig, *, overwrite: bool = False
) -> BuildSummary:
    """Build the dataset, go on with an interrupted build, or find it complete.

    Raises:
        PrepError: the archive, a table or the output folder does not allow it, or no pair is
            left; in the last case `rejected.parquet` says why.
    """
    plan = plan_build(config)
    log.info(
        "planned %s in %d shards; left out so far: %s",
        counts_line(plan.counts_by_split().items()),
        len(plan.shards),
        counts_line(plan.counts_by_reason().items()),
    )
    with claim_folder(out, config.options(), plan.source, overwrite=overwrite) as folder:
        if folder is None:
            return BuildSummary(out, read_card(out), _count_rejected(out), was_complete=True)
        card = _build_in(folder, config, plan, cluster)
        publish_folder(folder, out)
    return BuildSummary(out, card, _count_rejected(out), was_complete=False)


def _build_in(
    folder: Path, config: BuildConfig, plan: BuildPlan, cluster: ClusterConfig
) -> DatasetCard:
    _write_plan(folder, plan)
    idle = ClusterConfig(workers=0)
    with open_cluster(cluster if plan.shards else idle) as run:
        statistics = _statistics(folder, config, plan, run)
        parameters = {
            band.name: parameters_of(config.scheme, statistics.bands[band.name])
            for band in config.bands
        }
        recipe = _recipe(config, parameters)
        tasks = _tasks(folder, config, plan, recipe)
        with progress_bar(len(plan.table.pairs), "pairs") as advance:
            for pairs in run(make_shard, tasks):
                advance(pairs)
        rows, files = read_records(tasks)
        arrays = close_gaps(folder, _pixel_arrays(plan, recipe, files), run)
    tars = [file for file in files if file.name.endswith(".tar")]
    _drop_empty(folder, tars)
    card = card_of_build(plan, recipe, statistics.source, split_cards(tars, arrays))
    return _finish(folder, plan, card, rows)


def _write_plan(folder: Path, plan: BuildPlan) -> None:
    """One row group per shard, so that a task reads its own rows and nothing else."""
    pairs = plan.table.pairs
    with (
        whole_file(folder / BUILD_FOLDER / PLAN_NAME) as partial,
        pq.ParquetWriter(partial, pairs.schema) as writer,
    ):
        for spec in plan.shards:
            writer.write_table(pairs.take(pa.array(spec.rows)))


def _tasks(
    folder: Path, config: BuildConfig, plan: BuildPlan, recipe: SampleRecipe
) -> list[ShardTask]:
    return [
        ShardTask(
            dataset=folder.absolute(),
            row_group=number,
            name=spec.name,
            files=_files_of(config, plan, spec),
            s2_root=config.s2.absolute(),
            s1_root=config.s1.absolute(),
            recipe=recipe,
            fail_on_bad=config.fail_on_bad,
        )
        for number, spec in enumerate(plan.shards)
    ]


def _files_of(config: BuildConfig, plan: BuildPlan, spec: ShardSpec) -> ShardFileNames:
    sensors = [sensor for sensor in SENSORS if bands_of(sensor, config.bands)]
    return ShardFileNames(
        tar=spec.name if config.writes_tars else None,
        zarr={
            sensor: pixel_shard_name(spec.split, sensor, spec.number)
            for sensor in sensors
            if config.writes_zarr
        },
        capacity=plan.pairs_per_shard,
    )


def _statistics(folder: Path, config: BuildConfig, plan: BuildPlan, run: Runner) -> StatisticsTable:
    source = config.used_statistics
    if source == "published":
        is_v2 = plan.layout == "v2" and config.scheme != "paper"
        table = published_statistics("reben" if is_v2 else "dino-mm")
    elif source == "compute":
        table = _computed_statistics(folder, config, plan, run)
    else:
        table = read_statistics(source)
    require_bands(table, config.bands)
    return table


def _computed_statistics(
    folder: Path, config: BuildConfig, plan: BuildPlan, run: Runner
) -> StatisticsTable:
    """Of the train split's native pixels; kept in the build folder for a resumed build."""
    kept = folder / BUILD_FOLDER / _STATISTICS_NAME
    if kept.exists():
        return read_statistics(kept)
    every = _tasks(folder, config, plan, _recipe(config, parameters={}))
    tasks = [task for task in every if task.name.startswith("train/")]
    total = {band.name: empty_counts(band) for band in config.bands}
    with progress_bar(len(tasks), "shards counted") as advance:
        for counts in run(count_values, tasks):
            for name, histogram in counts.items():
                total[name] += histogram
            advance(1)
    table = StatisticsTable(
        source="computed: train split, native pixels",
        bands={band.name: summarize(band, total[band.name]) for band in config.bands},
    )
    write_statistics(table, kept)
    return table


def archive_statistics(config: BuildConfig, out: Path, cluster: ClusterConfig) -> StatisticsTable:
    """Statistics of the train split's native pixels, written to `out` for `--stats FILE`.

    Raises:
        PrepError: the archive or a table cannot be read, or no train pair is good.
    """
    plan = plan_build(config)
    folder = out.with_name(f"{out.name}.counting")
    (folder / BUILD_FOLDER).mkdir(parents=True, exist_ok=True)
    _write_plan(folder, plan)
    with open_cluster(cluster) as run:
        table = _computed_statistics(folder, config, plan, run)
    write_statistics(table, out)
    shutil.rmtree(folder)
    return table


def _recipe(config: BuildConfig, parameters: dict[str, BandParameters]) -> SampleRecipe:
    return SampleRecipe(
        bands=config.bands,
        scheme=config.scheme,
        dtype=config.stored_dtype,
        size_px=config.size_px,
        resampling=config.used_resampling,
        parameters=parameters,
    )


def _pixel_arrays(
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


def _finish(folder: Path, plan: BuildPlan, card: DatasetCard, rows: pa.Table) -> DatasetCard:
    """Tables from the records, Zarr metadata, then the card: from here on this is a dataset."""
    write_tables(folder, rows, plan.table.rejected)
    if not card.splits:
        why = counts_line(_count_rejected(folder).items())
        raise PrepError(f"no pair is left to store: {why}; see {folder / REJECTED_NAME}")
    manifest = read_manifest(folder)
    for split, part in card.splits.items():
        if part.zarr:
            rows = manifest.filter(pc.equal(manifest.column("split"), split))
            for name, content in group_files(card, split, rows):
                write_bytes(folder / name, content)
    write_text(folder / CARD_NAME, card.to_json())
    return card


def _drop_empty(folder: Path, tars: Sequence[ShardCard]) -> None:
    for tar in tars:
        if not tar.samples:
            (folder / tar.name).unlink(missing_ok=True)


def _count_rejected(dataset: Path) -> dict[str, int]:
    reasons = pq.read_table(dataset / REJECTED_NAME, columns=["reason"]).column("reason")
    return dict(Counter(reasons.to_pylist()).most_common())
