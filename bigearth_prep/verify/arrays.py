"""What verifying a tar and a shard file of a Zarr array have in common."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import xxhash

from bigearth_prep.bands import Sensor
from bigearth_prep.card import ShardCard
from bigearth_prep.verify.stored import ArrayKind


def check_size(folder: Path, shard: ShardCard) -> Iterator[str]:
    """Whether a shard file is there, and as large as the card says."""
    path = folder / shard.name
    if not path.is_file():
        yield f"{shard.name} is missing"
    elif (size := path.stat().st_size) != shard.bytes:
        yield f"{shard.name} is {size} bytes, dataset.json says {shard.bytes}"


def check_checksum(shard: ShardCard, found: str) -> Iterator[str]:
    """Whether a shard file has the checksum of the card."""
    if found != shard.xxh3_128:
        yield f"{shard.name} has xxh3_128 {found}, dataset.json says {shard.xxh3_128}"


def check_arrays(
    kinds: Mapping[Sensor, ArrayKind], checksum: int, arrays: Mapping[Sensor, memoryview]
) -> list[str]:
    """What is wrong with the bytes of a sample's arrays, in the order of the sensors.

    Args:
        kinds: What the arrays of each sensor should be.
        checksum: `xxh3_64` of the sample's manifest row.
        arrays: The bytes found in place of each sensor's array.
    """
    problems = []
    digest = xxhash.xxh3_64()
    for sensor, content in arrays.items():
        digest.update(content)
        kind = kinds[sensor]
        if len(content) != kind.bytes:
            problems.append(f"the shard ends inside the {sensor} array")
        elif kind.dtype.kind == "f" and not np.isfinite(np.frombuffer(content, kind.dtype)).all():
            problems.append(f"the {sensor} array holds values that are not finite")
    if digest.intdigest() != checksum:
        problems.append("stored arrays do not match xxh3_64 of the manifest")
    return problems
