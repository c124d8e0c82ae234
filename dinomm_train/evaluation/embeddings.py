"""Frozen features with their keys, as a Parquet file."""

import dataclasses
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bigearth_prep.card import SPLITS
from bigearth_prep.terminal import progress_bar
from bigearth_prep.whole_file import whole_file
from dinomm_train.data.index import StoredDataset
from dinomm_train.evaluation.config import ExtractionConfig
from dinomm_train.evaluation.features import choose_sensor_sets, embed_split
from dinomm_train.models.frozen import FrozenBackbone, require_same_input


def write_embeddings(
    frozen: FrozenBackbone, dataset: StoredDataset, path: Path, config: ExtractionConfig
) -> int:
    """The number of rows written: one per patch and sensor set, splits in stored order.

    Columns are `key`, `split`, `sensors` and `features`, a list of fixed length; the schema's
    metadata says which network made them from which dataset.

    Raises:
        TrainError: the dataset does not hold what the network was trained on, or lacks a sensor.
    """
    require_same_input(frozen, dataset.card, str(dataset.path))
    sensor_sets = choose_sensor_sets(dataset, config.sensor_sets)
    config = dataclasses.replace(config, sensor_sets=sensor_sets)
    splits = [dataset.split(name) for name in SPLITS if name in dataset.card.splits]
    schema = _schema(frozen, dataset)
    rows = 0
    with (
        whole_file(path) as partial,
        pq.ParquetWriter(partial, schema) as writer,
        progress_bar(sum(map(len, splits)), "patches") as advance,
    ):
        for split in splits:
            start = 0
            for batch in embed_split(frozen, dataset, split, config):
                count = len(batch[sensor_sets[0]])
                keys = split.table["key"].slice(start, count).combine_chunks()
                for sensors, features in batch.items():
                    flat = pa.array(features.numpy().ravel())
                    columns = [
                        keys,
                        pa.repeat(split.name, count),
                        pa.repeat(sensors, count),
                        pa.FixedSizeListArray.from_arrays(flat, features.shape[1]),
                    ]
                    writer.write_batch(pa.record_batch(columns, schema=schema))
                start += count
                rows += count * len(sensor_sets)
                advance(count)
    return rows


def _schema(frozen: FrozenBackbone, dataset: StoredDataset) -> pa.Schema:
    features = pa.list_(pa.float32(), frozen.network.width)
    fields = [("key", pa.string()), ("split", pa.string()), ("sensors", pa.string())]
    metadata = {
        "network": frozen.origin,
        "input": frozen.expects.to_json(),
        "dataset": str(dataset.path),
        "dataset_checksum": dataset.checksum,
    }
    return pa.schema([*fields, ("features", features)], metadata=metadata)
