"""A build from request to dataset: plan, statistics, shards, tables, card."""

import logging
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import bigearth_prep
from bigearth_prep.archive import drop_scratch, make_readable
from bigearth_prep.bands import PATCH_M, Band, bands_of
from bigearth_prep.card import (
    CARD_NAME,
    MANIFEST_NAME,
    REJECTED_NAME,
    SPLITS,
    BandParameters,
    DatasetCard,
    LabelCard,
    NormalizationCard,
    PatchCard,
    SensorCard,
    ShardCard,
    SplitCard,
    read_card,
)
from bigearth_prep.cluster import ClusterConfig, Runner, open_cluster
from bigearth_prep.errors import PrepError
from bigearth_prep.labels import CLASSES, NOMENCLATURE
from bigearth_prep.manifest import MANIFEST_SCHEMA, REJECTED_SCHEMA, write_table
from bigearth_prep.normalize import parameters_of
from bigearth_prep.output_folder import BuildRequest, claim_folder, publish_folder
from bigearth_prep.patch import RejectReason
from bigearth_prep.plan import PLAN_SCHEMA, BuildConfig, BuildPlan, plan_build
from bigearth_prep.sample import ORDERS, SampleRecipe
from bigearth_prep.shard_task import (
    BUILD_FOLDER,
    PLAN_NAME,
    RECORD_SCHEMA,
    ShardTask,
    count_values,
    make_shard,
    read_files_read,
    read_record,
    xxh3_128_of,
)
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
from bigearth_prep.whole_file import whole_file, write_text

log = logging.getLogger(__name__)

UNITS = {"s2": "reflectance x 10^4", "s1": "dB"}
_STATISTICS_NAME = "statistics.json"


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
    drop_scratch((plan.s2, plan.s1), config.storage)
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
    make_readable((plan.s2, plan.s1))
    _write_plan(folder, plan)
    idle = ClusterConfig(workers=0)
    with open_cluster(cluster if plan.shards else idle) as run:
        statistics = _statistics(folder, config, plan, run)
        parameters = {
            band.name: parameters_of(config.scheme, statistics.bands[band.name], band=band.name)
            for band in config.bands
        }
        recipe = _recipe(config, parameters)
        tasks = _tasks(folder, config, plan, recipe)
        with progress_bar(len(plan.table.pairs), "pairs") as advance:
            for pairs in run(make_shard, tasks):
                advance(pairs)
    files_read = sum((read_files_read(task.record_path) for task in tasks), Counter[str]())
    log.info("band files decoded: %s", counts_line(files_read.items()))
    _finish(folder, plan, recipe, statistics.source, tasks)
    return dict(files_read)


def _write_plan(folder: Path, plan: BuildPlan) -> None:
    """One row group per shard, so that a task reads its own rows and nothing else.

    To what pairing found, it adds where the files lie in tars.
    """
    with (
        whole_file(folder / BUILD_FOLDER / PLAN_NAME) as partial,
        pq.ParquetWriter(partial, PLAN_SCHEMA) as writer,
    ):
        for pairs in plan.tables():
            writer.write_table(pairs)


def _tasks(
    folder: Path, config: BuildConfig, plan: BuildPlan, recipe: SampleRecipe
) -> list[ShardTask]:
    return [
        ShardTask(
            dataset=folder.absolute(),
            row_group=number,
            name=spec.name,
            s2_root=plan.s2.root.absolute(),
            s1_root=plan.s1.root.absolute(),
            recipe=recipe,
            has_json=plan.layout == "v1",
            fail_on_bad=config.fail_on_bad,
        )
        for number, spec in enumerate(plan.shards)
    ]


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
    if not tasks:
        raise PrepError(
            "statistics are those of the train split, and no pair is in it; use --stats"
        )
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
    make_readable((plan.s2, plan.s1))
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside the output, where workers of other nodes can read the plan.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        folder = Path(scratch)
        _write_plan(folder, plan)
        with open_cluster(cluster) as run:
            table = _computed_statistics(folder, config, plan, run)
    write_statistics(table, out)
    drop_scratch((plan.s2, plan.s1), config.storage)
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


def _finish(
    folder: Path,
    plan: BuildPlan,
    recipe: SampleRecipe,
    statistics_source: str,
    tasks: Sequence[ShardTask],
) -> None:
    """Tables from the records, then the card: from here on the folder is a dataset."""
    records = [read_record(task.record_path) for task in tasks]
    tables = _write_tables(folder, plan.table.rejected, [rows for rows, _ in records])
    shards = [shard for _, shard in records if shard.samples]
    for _, shard in records:
        if not shard.samples:
            (folder / shard.name).unlink(missing_ok=True)
    if not shards:
        why = counts_line(_count_rejected(folder).items())
        raise PrepError(f"no pair is left to store: {why}; see {folder / REJECTED_NAME}")
    card = replace(_card(plan, recipe, statistics_source, shards), tables=tables)
    write_text(folder / CARD_NAME, card.to_json())


def _write_tables(folder: Path, rejected: pa.Table, records: list[pa.Table]) -> dict[str, str]:
    """Rows of the records, in stored order, to the manifest or to the rejected.

    Returns the checksum of each table's file.
    """
    rows = pa.concat_tables(
        [RECORD_SCHEMA.empty_table(), *(table.replace_schema_metadata() for table in records)]
    )
    bad = pc.is_valid(rows.column("reason"))
    refused = rows.filter(bad).select(REJECTED_SCHEMA.names)
    write_table(rows.filter(pc.invert(bad)).select(MANIFEST_SCHEMA.names), folder / MANIFEST_NAME)
    order = [(name, "ascending") for name in ("reason", "key", "s1_name")]
    write_table(pa.concat_tables([rejected, refused]).sort_by(order), folder / REJECTED_NAME)
    return {name: xxh3_128_of(folder / name) for name in (MANIFEST_NAME, REJECTED_NAME)}


def _card(
    plan: BuildPlan, recipe: SampleRecipe, statistics_source: str, shards: Sequence[ShardCard]
) -> DatasetCard:
    return DatasetCard(
        created_by=f"bigearth-prep {bigearth_prep.__version__}",
        source=plan.source,
        patch=PatchCard(
            size_px=recipe.size_px,
            resolution_m=PATCH_M / recipe.size_px,
        ),
        sensors={
            sensor: _sensor_card(bands_of(sensor, recipe.bands), recipe)
            for sensor in recipe.sensors
        },
        normalization=NormalizationCard(
            scheme=recipe.scheme,
            parameters=recipe.parameters,
            source=statistics_source,
            resampling=recipe.resampling,
            order=ORDERS[recipe.scheme],
        ),
        labels=LabelCard(nomenclature=NOMENCLATURE, classes=CLASSES),
        splits={split: card for split in SPLITS if (card := _split_card(split, shards)).shards},
    )


def _sensor_card(bands: tuple[Band, ...], recipe: SampleRecipe) -> SensorCard:
    encodings = [recipe.encodings[band] for band in bands]
    return SensorCard(
        bands=tuple(band.name for band in bands),
        dtype=encodings[0].dtype,
        unit=UNITS[bands[0].sensor],
        scale=tuple(encoding.scale for encoding in encodings),
        offset=tuple(encoding.offset for encoding in encodings),
    )


def _split_card(split: str, shards: Sequence[ShardCard]) -> SplitCard:
    own = tuple(shard for shard in shards if shard.name.startswith(f"{split}/"))
    return SplitCard(samples=sum(shard.samples for shard in own), shards=own)


def _count_rejected(dataset: Path) -> dict[str, int]:
    reasons = pq.read_table(dataset / REJECTED_NAME, columns=["reason"]).column("reason")
    return dict(Counter(reasons.to_pylist()).most_common())
