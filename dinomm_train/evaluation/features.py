"""Features of a dataset on disk: computed once, in whole files, shared out over processes."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import xxhash
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from bigearth_prep.terminal import progress_bar
from bigearth_prep.whole_file import whole_file, write_text
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.evaluation.config import ExtractionConfig, SensorSet
from dinomm_train.evaluation.encoders import Encoder
from dinomm_train.evaluation.images import in_batches, read_images
from dinomm_train.transfer import to_host

_Rows = dict[SensorSet, list[Callable[[], Tensor]]]
"""Features of one batch after the other, on their way to the host."""

_log = logging.getLogger(__name__)

PART_SAMPLES = 1024
"""Samples per file: what is lost when a process dies."""

_VERSION = 1
"""Of what is stored; another one is computed anew."""

_POLL_S = 0.2
_REMIND_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Which part of the work is this process's: every `world`-th piece, from number `rank` on."""

    rank: int = 0
    world: int = 1

    def __contains__(self, piece: int) -> bool:
        return piece % self.world == self.rank


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledFeatures:
    """Some samples under one sensor set."""

    features: Float32[Tensor, "sample feature"]
    labels: UInt8[Tensor, "sample class"]

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, positions: Int64[np.ndarray, " chosen"]) -> "LabelledFeatures":
        """The samples at these positions."""
        chosen = torch.from_numpy(positions).to(self.labels.device)
        return LabelledFeatures(features=self.features[chosen], labels=self.labels[chosen])


class FeatureStore:
    """One encoder's features of one dataset, in a folder named after the checksums of both."""

    def __init__(self, cache: Path, encoder: Encoder, dataset: StoredDataset) -> None:
        self._encoder = encoder
        self._dataset = dataset
        about = {
            "version": _VERSION,
            "encoder": encoder.checksum,
            "dataset": dataset.checksum,
            "width": encoder.width,
        }
        key = xxhash.xxh3_64_hexdigest(json.dumps(about, sort_keys=True).encode())
        self.folder = cache / "features" / key
        self._about = about | {"origin": encoder.origin, "dataset_location": dataset.location}

    def compute(
        self,
        name: str,
        splits: Mapping[str, StoredSplit],
        config: ExtractionConfig,
        *,
        device: torch.device,
        share: Share,
    ) -> None:
        """Write this process's share of the parts that are not there yet.

        Args:
            name: Of the encoder, for the progress line.
            splits: What to encode.
            config: Sensor sets and batch size.
            device: Where to compute.
            share: Which parts are this process's.
        """
        todo = {
            split_name: {
                part: missing
                for part in range(_parts(split))
                if part in share and (missing := self._missing(split, part, config.sensor_sets))
            }
            for split_name, split in splits.items()
        }
        if not any(todo.values()):
            return
        if share.rank == 0:
            write_text(self.folder / "about.json", json.dumps(self._about, indent=2) + "\n")
        total = sum(
            len(_positions(splits[one], part)) for one, parts in todo.items() for part in parts
        )
        with progress_bar(total, f"patches through {name}") as advance:
            for split_name, parts in todo.items():
                split = splits[split_name]
                for part in self._compute_parts(split, parts, config.batch_size, device):
                    advance(len(_positions(split, part)))

    def wait(self, splits: Mapping[str, StoredSplit], sensor_sets: tuple[SensorSet, ...]) -> None:
        """Return once every part is there, whichever process writes it."""
        wait_for(
            [
                self._path(split.name, sensors, part)
                for split in splits.values()
                for part in range(_parts(split))
                for sensors in sensor_sets
            ]
        )

    def read(self, split: StoredSplit, sensors: SensorSet) -> Float32[np.ndarray, "sample feature"]:
        """The split's features under a sensor set, in stored order."""
        parts = [
            np.load(self._path(split.name, sensors, part), mmap_mode="r")
            for part in range(_parts(split))
        ]
        return np.concatenate(parts)

    def _compute_parts(
        self,
        split: StoredSplit,
        parts: Mapping[int, tuple[SensorSet, ...]],
        batch_size: int,
        device: torch.device,
    ) -> Iterator[int]:
        """Write these parts, each under the sensor sets that it lacks; gives those that are done.

        All are read in one go, so that reading ahead does not end with each.
        """
        batches = {part: in_batches(_positions(split, part), batch_size) for part in parts}
        in_order = [batch for some in batches.values() for batch in some]
        with (
            closing(read_images(self._dataset, split, in_order, device)) as images_of,
            ThreadPoolExecutor(1, thread_name_prefix="write-features") as writer,
        ):
            written: Future[int] | None = None
            for part, missing in parts.items():
                encoded: _Rows = {sensors: [] for sensors in missing}
                for images in islice(images_of, len(batches[part])):
                    for sensors, rows in encoded.items():
                        rows.append(to_host(self._encoder.encode(images, sensors)))
                if written:
                    yield written.result()
                # Meanwhile a GPU goes on with the next part.
                written = writer.submit(self._write_part, split.name, part, encoded)
            if written:
                yield written.result()

    def _write_part(self, split: str, part: int, encoded: _Rows) -> int:
        for sensors, rows in encoded.items():
            path = self._path(split, sensors, part)
            with whole_file(path) as partial, partial.open("wb") as file:
                np.save(file, torch.cat([wait() for wait in rows]).numpy())
        return part

    def _missing(
        self, split: StoredSplit, part: int, sensor_sets: tuple[SensorSet, ...]
    ) -> tuple[SensorSet, ...]:
        return tuple(
            sensors
            for sensors in sensor_sets
            if not self._path(split.name, sensors, part).is_file()
        )

    def _path(self, split: str, sensors: SensorSet, part: int) -> Path:
        return self.folder / f"{split}-{sensors}" / f"part-{part:06}.npy"


def wait_for(paths: list[Path]) -> None:
    """Return once every file is there; says so each minute while other processes write them."""
    since = time.monotonic()
    while missing := [path for path in paths if not path.is_file()]:
        time.sleep(_POLL_S)
        if time.monotonic() - since > _REMIND_S:
            since = time.monotonic()
            _log.info("waiting for other processes: %d files, first %s", len(missing), missing[0])


def _parts(split: StoredSplit) -> int:
    return -(-len(split) // PART_SAMPLES)


def _positions(split: StoredSplit, part: int) -> Int64[np.ndarray, " sample"]:
    return np.arange(part * PART_SAMPLES, min((part + 1) * PART_SAMPLES, len(split)))
