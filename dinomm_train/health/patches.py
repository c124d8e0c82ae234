"""Patches that are looked at again and again: the same ones, whole and unchanged each time."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from dinomm_train.config import CropConfig, RunConfig
from dinomm_train.data.crops import CropBoxes, cut_crops
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.inputs import InputScaling, to_network_input
from dinomm_train.data.sensor_drop import BOTH, S1_DROPPED, S2_DROPPED, drop_sensors
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.data.stream import ShardReader

_CHUNK = 64
"""Patches that networks see at once: their logits of 65,536 prototypes are 16 MiB a network."""

_STATES = {"both": BOTH, "s1": S2_DROPPED, "s2": S1_DROPPED}
"""What the networks are shown: both sensors, radar alone, optics alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedPatches:
    """Some patches of a split, shown at the side of a global crop."""

    split: StoredSplit
    positions: Int64[np.ndarray, " patch"]
    reader: ShardReader
    scaling: InputScaling
    crops: CropConfig
    fill: float
    """Network input that stands for a missing sensor."""

    @classmethod
    def of(
        cls,
        split: StoredSplit,
        positions: Int64[np.ndarray, " patch"],
        dataset: StoredDataset,
        config: RunConfig,
    ) -> "FixedPatches":
        """The patches at these positions, shown as the run's networks are used to."""
        return cls(
            split=split,
            positions=positions,
            reader=ShardReader(split),
            scaling=InputScaling.of(dataset.card),
            crops=config.views.crops,
            fill=config.views.sensor_drop.fill,
        )

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def labels(self) -> UInt8[np.ndarray, "patch class"]:
        """1 where the class is present."""
        labels: UInt8[np.ndarray, "patch class"] = self.split.labels[self.positions]
        return labels

    @property
    def states(self) -> tuple[str, ...]:
        """Names of what can be shown; `both` comes first and is all where there is one sensor."""
        return tuple(_STATES) if self.scaling.channels.has_both else ("both",)

    def chunks(self, device: torch.device) -> Iterator[dict[str, Float32[Tensor, "..."]]]:
        """Successive patches on the device, by what is shown of them."""
        for first in range(0, len(self), _CHUNK):
            batch = self.reader.read(self.positions[first : first + _CHUNK])
            images = to_network_input(batch, self.scaling, device)
            whole = cut_crops(
                images,
                _whole_boxes(len(images), images.shape[-1]),
                crop_px=self.crops.global_px,
                antialias=self.crops.antialias,
            )
            yield {name: self._show(whole, name) for name in self.states}

    def share(self, rank: int, world: int) -> "FixedPatches":
        """This rank's patches; every rank has equally many, so that some come twice.

        Patch `i` is number `i // world` of rank `i % world`.
        """
        per_rank = -(-len(self) // world)
        mine = np.resize(self.positions, per_rank * world)[rank::world]
        return replace(self, positions=mine)

    def _show(self, images: Float32[Tensor, "..."], name: str) -> Float32[Tensor, "..."]:
        states = np.full(len(images), _STATES[name], dtype=np.int8)
        return drop_sensors(images, states, self.scaling.channels, self.fill)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """Where a run's held-out patches come from."""

    split: StoredSplit
    candidates: Int64[np.ndarray, " patch"]
    """Positions in the split, ascending."""

    is_trained_on: bool
    """Whether training sees them too, for want of a validation split."""


def choose_held_out(dataset: StoredDataset, train: StoredSplit, count: int) -> HeldOut:
    """The validation split's patches; where there is none, the last `count` of train."""
    validation = dataset.card.splits.get("validation")
    if validation is not None and validation.samples:
        split = dataset.split("validation")
        return HeldOut(split=split, candidates=np.arange(len(split)), is_trained_on=False)
    first = max(0, len(train) - count)
    return HeldOut(split=train, candidates=np.arange(first, len(train)), is_trained_on=True)


def spread(candidates: Int64[np.ndarray, " candidate"], count: int) -> Int64[np.ndarray, " chosen"]:
    """At most `count` of the candidates, at even distances: always the same ones."""
    count = min(count, len(candidates))
    return candidates[np.arange(count, dtype=np.int64) * len(candidates) // max(count, 1)]


def _whole_boxes(count: int, side_px: int) -> CropBoxes:
    """Boxes that leave nothing out and turn nothing."""
    zeros, sides = np.zeros(count, dtype=np.int64), np.full(count, side_px, dtype=np.int64)
    still = np.zeros(count, dtype=bool)
    return CropBoxes(
        top=zeros,
        left=zeros,
        height=sides,
        width=sides,
        mirrored=still,
        flipped=still,
        turned=still,
    )
