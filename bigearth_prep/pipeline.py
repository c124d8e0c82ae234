"""A build from request to dataset: plan, statistics, shards, tables, card."""

import logging
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from bigearth_prep.build_card import card_of_build, split_cards
from bigearth_prep.build_tasks import forget_tries, recipe_of, shard_tasks, write_plan
from bigearth_prep.card import CARD_NAME, REJECTED_NAME, DatasetCard, ShardCard, read_card
from bigearth_prep.cluster import ClusterConfig, Runner, open_cluster
from bigearth_prep.errors import PrepError
from bigearth_prep.manifest import read_manifest, write_tables
from bigearth_prep.normalize import parameters_of, statistics_of
from bigearth_prep.output_folder import BuildRequest, claim_folder, publish_folder
from bigearth_prep.patch import RejectReason
from bigearth_prep.plan import BuildConfig, BuildPlan, plan_build
from bigearth_prep.shard_plan import first_pairs
from bigearth_prep.shard_record import read_records
from bigearth_prep.shard_task import BUILD_FOLDER, count_values, make_shard
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
from bigearth_prep.whole_file import drop_partial_files, write_bytes, write_text
from bigearth_prep.zarr_group import group_files
from bigearth_prep.zarr_repack import close_gaps, pixel_arrays

log = logging.getLogger(__name__)

_STATISTICS_NAME = "statistics.json"
_EXACT = "computed, exact: every good pair of the train split, native pixels"


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """What a build has left behind."""

    dataset: Path
    card: DatasetCard
    rejected: dict[str, int]
    """Rows of `rejected.parquet` by reason."""

    files_read: dict[str, int]
    """Band files by what decoded them; empty where nothing was done."""

    was_complete: bool
    """The same dataset stood already, and nothing was done."""


def build_dataset(
    config: BuildConfig,
    out: Path,
    cluster: ClusterConfig,
    *,
    resume: bool = True,
    overwrite: bool = False,
) -> BuildSummary:
    """Build the dataset, go on with an interrupted build, or find it complete.

    Raises:
        PrepError: the archive, a table or the output folder does not allow it, or no pair is
            left; in the last case `rejected.parquet` says why.
    """
    plan = plan_build(config)
    if config.fail_on_bad:
        _refuse_faults(plan)
    log.info(
        "planned %s in %d shards; left out so far: %s",
        counts_line(plan.counts_by_split().items()),
        len(plan.shards),
        counts_line(plan.counts_by_reason().items()),
    )
    request = BuildRequest(config.options(), config.places(), plan.source)
    with claim_folder(out, request, resume=resume, overwrite=overwrite) as folder:
        files_read: dict[str, int] = {}
        if folder is not None:
            files_read = _build_in(folder, config, plan, cluster)
            publish_folder(folder, out)
    plan.pairs.clean_up()
    return BuildSummary(
        out, read_card(out), _count_rejected(out), files_read, was_complete=folder is None
    )


def _refuse_faults(plan: BuildPlan) -> None:
    """`--on-bad fail` holds for pairs of which a part is missing, not for those filtered out."""
    faults = {
        reason: count
        for reason, count in plan.counts_by_reason().items()
        if RejectReason(reason).is_fault
    }
    if faults:
        raise PrepError(f"{counts_line(faults.items())}; --on-bad skip leaves such pairs out")


def _build_in(
    folder: Path, config: BuildConfig, plan: BuildPlan, cluster: ClusterConfig
) -> dict[str, int]:
    plan.pairs.make_readable()
    write_plan(folder, plan)
    idle = ClusterConfig(workers=0)
    with open_cluster(cluster if plan.shards else idle) as run:
        statistics = _statistics(folder, config, plan, run)
        parameters = {
            band.name: parameters_of(config.scheme, statistics.bands[band.name], band=band.name)
            for band in config.bands
        }
        recipe = recipe_of(config, parameters)
        tasks = shard_tasks(folder, config, plan, recipe)
        forget_tries(tasks)
        with progress_bar(len(plan.table.pairs), "pairs") as advance:
            for pairs in run(make_shard, tasks):
                advance(pairs)
        record = read_records(task.record_path for task in tasks)
        arrays = close_gaps(folder, pixel_arrays(plan, recipe, record.files), run)
    log.info("band files decoded: %s", counts_line(record.files_read.items()))
    tars = [file for file in record.files if file.name.endswith(".tar")]
    _drop_empty(folder, tars)
    drop_partial_files(folder)
    tables = write_tables(folder, record.rows, plan.table.rejected)
    splits = split_cards(tars, arrays)
    card = card_of_build(plan, config.collection, recipe, statistics.source, splits, tables)
    _finish(folder, card)
    return dict(record.files_read)


def _statistics(folder: Path, config: BuildConfig, plan: BuildPlan, run: Runner) -> StatisticsTable:
    source = config.used_statistics
    if source == "published":
        is_paper = config.scheme == "paper"
        table = published_statistics("dino-mm" if is_paper else plan.pairs.published_origin)
    elif source == "compute":
        table = _computed_statistics(folder, config, plan, run)
    elif source.name == CARD_NAME:
        table = statistics_of(read_card(source.parent).normalization)
    else:
        table = read_statistics(source)
    require_bands(table, config.bands)
    return table


def _computed_statistics(
    folder: Path, config: BuildConfig, plan: BuildPlan, run: Runner
) -> StatisticsTable:
    """Of the train split's native pixels; kept in the build folder for a resumed build."""
    kept = folder / BUILD_FOLDER / _STATISTICS_NAME
    if not kept.exists():
        write_statistics(_count_train(folder, config, plan, run, source=_EXACT), kept)
    return read_statistics(kept)


def _count_train(
    folder: Path, config: BuildConfig, plan: BuildPlan, run: Runner, *, source: str
) -> StatisticsTable:
    every = shard_tasks(folder, config, plan, recipe_of(config, parameters={}))
    tasks = [task for task in every if task.name.startswith("train/")]
    if not tasks:
        raise PrepError(
            "statistics are those of the train split, and no pair is in it; use --stats"
        )
    forget_tries(tasks)
    total = {band.name: empty_counts(band) for band in config.bands}
    bad: list[str] = []
    with progress_bar(len(tasks), "shards counted") as advance:
        for counted in run(count_values, tasks):
            for name, histogram in counted.histograms.items():
                total[name] += histogram
            bad += [counted.first_bad] if counted.first_bad else []
            advance(1)
    if not any(histogram.any() for histogram in total.values()):
        raise PrepError(f"statistics are those of the train split, and all is bad: {bad[0]}")
    return StatisticsTable(
        source=source,
        bands={band.name: summarize(band, total[band.name]) for band in config.bands},
    )


def archive_statistics(
    config: BuildConfig, out: Path, cluster: ClusterConfig, *, sampled_pairs: int | None = None
) -> StatisticsTable:
    """Statistics of the train split's native pixels, written to `out` for `--stats FILE`.

    Args:
        config: The archive; its seed draws the sample.
        out: JSON file to write; its `source` says whether pairs were left out.
        cluster: Where to count.
        sampled_pairs: Train pairs to count; all by default.

    Raises:
        PrepError: the archive or a table cannot be read, or no train pair is good.
    """
    plan = plan_build(config)
    pairs = plan.counts_by_split().get("train", 0)
    source = _EXACT
    if sampled_pairs is not None and sampled_pairs < pairs:
        plan = replace(plan, shards=first_pairs(plan.shards, "train", sampled_pairs))
        source = (
            f"computed, sampled: {sampled_pairs:,} of {pairs:,} pairs of the train split, drawn by "
            f"seed {config.tables.seed}, native pixels"
        )
    plan.pairs.make_readable()
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside the output, where workers of other nodes can read the plan.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        folder = Path(scratch)
        write_plan(folder, plan)
        with open_cluster(cluster) as run:
            table = _count_train(folder, config, plan, run, source=source)
    write_statistics(table, out)
    plan.pairs.clean_up()
    return table


def _drop_empty(folder: Path, tars: Sequence[ShardCard]) -> None:
    for tar in tars:
        if not tar.samples:
            (folder / tar.name).unlink(missing_ok=True)


def _finish(folder: Path, card: DatasetCard) -> None:
    """Zarr metadata, labels and keys, then the card: from here on the folder is a dataset."""
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


def _count_rejected(dataset: Path) -> dict[str, int]:
    reasons = pq.read_table(dataset / REJECTED_NAME, columns=["reason"]).column("reason")
    return dict(Counter(reasons.to_pylist()).most_common())
