"""Weighted sums of pixels along rows and columns: the one kernel behind crops and blur.

A separable filter takes, for each output line, a few input lines and a weight for each. Both passes
are embedding-bag sums over rows of memory, so that only the few taps are read, whatever the crop,
and channels stay together.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor
from torch.nn.functional import embedding_bag

_WORKING_BYTES = {"cpu": 2**24, "cuda": 2**29}
"""Memory worked in at once, by device. On a CPU, malloc takes larger blocks from the system
each time, and their first touch costs more than the sums; on a GPU this only bounds the peak."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Taps:
    """Which input lines make each output line of each crop."""

    indices: Int64[Tensor, "crop line tap"]
    """Input lines."""

    weights: Float32[Tensor, "crop line tap"]
    """Share of each; the shares of a line add up to one."""

    def of(self, crops: Int64[Tensor, " chosen"]) -> "Taps":
        """The taps of these crops alone."""
        return Taps(indices=self.indices[crops], weights=self.weights[crops])


def resample(
    images: Float32[Tensor, "image channel height width"],
    rows: Taps,
    columns: Taps,
    turned: Bool[Tensor, " crop"] | None = None,
) -> Float32[Tensor, "crop channel side side"]:
    """Square crops, in channels-last memory; crop `i` is of image `i % image`.

    Args:
        images: What to take crops of; square where crops are turned.
        rows: Image rows that make each row of a crop.
        columns: Image columns that make each column of a crop.
        turned: Crops of images whose rows and columns have changed places; None for no crop.
    """
    count, channels = images.shape[:2]
    crops, side, _ = rows.indices.shape
    resampled = images.new_empty((crops, side, side, channels))
    crops_of = torch.arange(crops, device=images.device).view(-1, count).T
    at_once = _images_at_once(images, crops * side)
    for first in range(0, count, at_once):
        some = slice(first, first + at_once)
        chosen = crops_of[some].flatten()
        sources = images[some].permute(0, 2, 3, 1)
        source_of = torch.arange(len(sources), device=images.device)
        source_of = source_of.repeat_interleave(crops // count)
        if turned is not None:
            source_of += len(sources) * turned[chosen]
            sources = torch.cat([sources, sources.transpose(1, 2)])
        mixed_rows = _mix_rows(sources, source_of, rows.of(chosen))
        resampled[chosen] = _mix_columns(mixed_rows, columns.of(chosen))
    return resampled.permute(0, 3, 1, 2)


def _images_at_once(images: Float32[Tensor, "image channel height width"], lines: int) -> int:
    """Images whose copies, and whose crops' lines between the two passes, fit the memory."""
    _, channels, height, width = images.shape
    line_bytes = channels * width * images.element_size()
    bytes_per_image = (2 * height + lines // len(images)) * line_bytes
    return max(1, _WORKING_BYTES[images.device.type] // bytes_per_image)


def _mix_rows(
    images: Float32[Tensor, "image height width channel"],
    image_of: Int64[Tensor, " crop"],
    rows: Taps,
) -> Float32[Tensor, "crop side width channel"]:
    count, height, width, channels = images.shape
    image_rows = images.reshape(count * height, width * channels)
    indices = rows.indices + (image_of * height)[:, None, None]
    return _weighted_sums(image_rows, indices, rows.weights).view(
        *indices.shape[:2], width, channels
    )


def _mix_columns(
    mixed_rows: Float32[Tensor, "crop side width channel"], columns: Taps
) -> Float32[Tensor, "crop side side channel"]:
    crops, side, width, channels = mixed_rows.shape
    first_pixels = torch.arange(crops * side, device=mixed_rows.device).view(crops, side, 1, 1)
    indices = first_pixels * width + columns.indices[:, None]
    weights = columns.weights[:, None].expand(indices.shape)
    pixels = mixed_rows.view(crops * side * width, channels)
    return _weighted_sums(pixels, indices, weights).view(crops, side, side, channels)


def _weighted_sums(
    vectors: Float32[Tensor, "vector width"],
    indices: Int64[Tensor, "*out tap"],
    weights: Float32[Tensor, "*out tap"],
) -> Float32[Tensor, "sum width"]:
    taps = indices.shape[-1]
    return embedding_bag(
        indices.reshape(-1, taps),
        vectors,
        per_sample_weights=weights.reshape(-1, taps),
        mode="sum",
    )
