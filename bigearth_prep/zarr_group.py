"""The layout of `<split>.zarr`: which files it has, and every byte of them but the pixels.

Metadata, labels and keys follow from the card and the manifest alone, so that a build writes
them last and `verify` makes them again to compare.
"""

import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from bigearth_prep.bands import SENSORS, Sensor
from bigearth_prep.card import DatasetCard
from bigearth_prep.labels import multi_hot

_METADATA_NAME = "zarr.json"
_STRINGS = {"name": "vlen-utf8", "configuration": {}}
_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_BYTES = {"name": "bytes"}


def group_name(split: str) -> str:
    """The folder of a split's Zarr group, relative to the dataset."""
    return f"{split}.zarr"


def pixel_shard_name(split: str, sensor: Sensor, number: int) -> str:
    """Path of a shard file of a sensor's array, relative to the dataset."""
    return f"{group_name(split)}/{sensor}/c/{number}/0/0/0"


def group_files(card: DatasetCard, split: str, rows: pa.Table) -> Iterator[tuple[str, bytes]]:
    """Every file of the group but the pixel shards: its path in the dataset, and its content.

    Args:
        card: The dataset's card.
        split: The split.
        rows: Its manifest rows (`key`, `labels`), in stored order.
    """
    zarr = card.splits[split].zarr
    assert zarr is not None
    arrays = _metadata_of_arrays(card, len(rows), zarr.samples_per_shard)
    group = group_name(split)
    yield f"{group}/{_METADATA_NAME}", _json(_metadata_of_group(card, arrays))
    for name, metadata in arrays.items():
        yield f"{group}/{name}/{_METADATA_NAME}", _json(metadata)
    for name, values in _coordinates(card).items():
        yield f"{group}/{name}/c/0", _string_chunk(values, len(values))
    capacity = zarr.samples_per_shard
    for number, start in enumerate(range(0, len(rows), capacity)):
        part = rows.slice(start, capacity)
        keys, labels = part.column("key").to_pylist(), part.column("labels").to_pylist()
        yield f"{group}/key/c/{number}", _string_chunk(keys, capacity)
        if classes := card.labels.classes:
            content = _label_chunk(labels, classes, capacity).tobytes()
            yield f"{group}/labels/c/{number}/0", content


def _coordinates(card: DatasetCard) -> dict[str, tuple[str, ...]]:
    """Names along the dimensions that have them; each sensor has its own band dimension."""
    bands = {f"{sensor}_band": layout.bands for sensor, layout in card.sensors.items()}
    return bands | ({"class": card.labels.classes} if card.labels.classes else {})


def _metadata_of_group(card: DatasetCard, arrays: dict[str, Any]) -> dict[str, Any]:
    """The group's `zarr.json`; xarray opens a group by the copies of the arrays' metadata."""
    inline = {"kind": "inline", "must_understand": False, "metadata": arrays}
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": json.loads(card.to_json()),
        "consolidated_metadata": inline,
    }


def _metadata_of_arrays(card: DatasetCard, samples: int, capacity: int) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        sensor: _pixels(card, sensor, samples, capacity)
        for sensor in SENSORS
        if sensor in card.sensors
    }
    if classes := len(card.labels.classes):  # an array of none has no chunks to be made of
        arrays["labels"] = _array((samples, classes), (capacity, classes), ("sample", "class"))
        arrays["labels"] |= {"data_type": "uint8", "fill_value": 0, "codecs": [_BYTES]}
    arrays["key"] = _strings(samples, capacity, "sample")
    for name, values in _coordinates(card).items():
        arrays[name] = _strings(len(values), len(values), name)
    return arrays


def _pixels(card: DatasetCard, sensor: Sensor, samples: int, capacity: int) -> dict[str, Any]:
    layout, side = card.sensors[sensor], card.patch.size_px
    patch = (len(layout.bands), side, side)
    names = ("sample", f"{sensor}_band", "y", "x")
    values = _BYTES if np.dtype(layout.dtype).itemsize == 1 else _LITTLE
    sharding = {
        "chunk_shape": [1, *patch],
        "codecs": [values],
        "index_codecs": [_LITTLE, {"name": "crc32c"}],
        "index_location": "end",
    }
    return _array((samples, *patch), (capacity, *patch), names) | {
        "data_type": layout.dtype,
        "fill_value": 0.0 if np.dtype(layout.dtype).kind == "f" else 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {
            "unit": layout.unit,
            "scale": list(layout.scale),
            "offset": list(layout.offset),
        },
    }


def _strings(count: int, per_chunk: int, dimension: str) -> dict[str, Any]:
    kind = {"data_type": "string", "fill_value": "", "codecs": [_STRINGS]}
    return _array((count,), (per_chunk,), (dimension,)) | kind


def _array(
    shape: tuple[int, ...], chunk: tuple[int, ...], dimensions: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "dimension_names": list(dimensions),
        "attributes": {},
        "storage_transformers": [],
    }


def _string_chunk(values: Sequence[str], capacity: int) -> bytes:
    """The `vlen-utf8` codec: the count, then each string after its length in bytes."""
    padded = [value.encode() for value in values] + [b""] * (capacity - len(values))
    parts = [struct.pack("<I", len(text)) + text for text in padded]
    return struct.pack("<I", capacity) + b"".join(parts)


def _label_chunk(
    labels: Sequence[Sequence[str]], classes: Sequence[str], capacity: int
) -> UInt8[np.ndarray, "row class"]:
    rows = [multi_hot(names, classes) for names in labels]
    return np.pad(np.stack(rows), ((0, capacity - len(rows)), (0, 0)))


def _json(metadata: dict[str, Any]) -> bytes:
    return (json.dumps(metadata, indent=2, ensure_ascii=False) + "\n").encode()
