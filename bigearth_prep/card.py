"""The dataset card, `dataset.json`: everything a reader of the shards must know."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from bigearth_prep.bands import SENSORS, Sensor
from bigearth_prep.errors import PrepError

FORMAT = "bigearth-shards"
FORMAT_VERSION = 1
CARD_NAME = "dataset.json"
MANIFEST_NAME = "manifest.parquet"
REJECTED_NAME = "rejected.parquet"

Scheme = Literal["paper", "zscore", "percentile", "none"]
"""How stored values were made from physical ones."""

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class BandParameters:
    """What the normalization of one band was computed with."""

    mean: float
    """Mean of the band's physical values (reflectance x 10^4, or dB)."""

    std: float
    """Standard deviation of the same."""

    lower: float
    """Physical value stored as the lowest code; equals `mean` for `zscore` and 0 for `none`."""

    upper: float
    """Physical value stored as the highest code; `mean + std` for `zscore`, 1 for `none`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SensorCard:
    """One sensor's arrays: `[band, height, width]` of `dtype`.

    `physical = stored * scale + offset`, per band, up to quantization and clipping.
    """

    bands: tuple[str, ...]
    dtype: str
    unit: str
    scale: tuple[float, ...]
    offset: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class NormalizationCard:
    """How stored values came from physical ones."""

    scheme: Scheme
    parameters: dict[str, BandParameters]
    """By band name."""

    source: str
    """Where the parameters come from: a publication, a file, or this dataset's train split."""

    resampling: str
    """Method by which bands came onto the 10 m grid: nearest, bilinear or cubic."""

    order: str
    """The order of resampling, clipping, scaling and rounding, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchCard:
    """The grid that all arrays share."""

    size_px: int
    resolution_m: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelCard:
    """The label vocabulary; a class index is a position in `classes`."""

    nomenclature: str
    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardCard:
    """One shard file, a tar or part of a Zarr array, by its path relative to the dataset."""

    name: str
    samples: int
    bytes: int
    xxh3_128: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ZarrCard:
    """The pixel arrays of one split's Zarr group."""

    samples_per_shard: int
    """Samples in every shard file but the last of an array."""

    shards: tuple[ShardCard, ...]
    """Shard files of the Sentinel-2 array in stored order, then of the Sentinel-1 array."""

    def shard_count(self, samples: int) -> int:
        """Shard files that the array of so many samples has."""
        return -(-samples // self.samples_per_shard)


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCard:
    """One split's shards, in stored order."""

    samples: int
    shards: tuple[ShardCard, ...]
    """The tars; none where the dataset was built as Zarr alone."""

    zarr: ZarrCard | None = None
    """The group `<split>.zarr`, where there is one."""

    @property
    def files(self) -> tuple[ShardCard, ...]:
        """Every shard file, tars first."""
        return self.shards + (self.zarr.shards if self.zarr else ())


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetCard:
    """The whole card."""

    created_by: str
    source: dict[str, Any]
    """Archive kind, and the checksums of the metadata files used."""

    patch: PatchCard
    sensors: dict[Sensor, SensorCard]
    normalization: NormalizationCard
    labels: LabelCard
    splits: dict[str, SplitCard]
    tables: dict[str, str] = field(default_factory=dict)
    """xxh3_128 of the manifest and of the table of rejected pairs, by file name."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Band names as the network sees them stacked: Sentinel-2 first, then Sentinel-1."""
        return tuple(name for sensor in SENSORS for name in self.sensor_bands(sensor))

    def sensor_bands(self, sensor: Sensor) -> tuple[str, ...]:
        """Band names of one sensor; empty where the dataset does not hold it."""
        return self.sensors[sensor].bands if sensor in self.sensors else ()

    def array_shape(self, sensor: Sensor) -> tuple[int, int, int]:
        """Bands, height and width of one sample's array of a sensor."""
        return len(self.sensors[sensor].bands), self.patch.size_px, self.patch.size_px

    def array_bytes(self, sensor: Sensor) -> int:
        """Size of one sample's array of a sensor."""
        return math.prod(self.array_shape(sensor)) * np.dtype(self.sensors[sensor].dtype).itemsize

    def to_json(self) -> str:
        """The card as the text of `dataset.json`."""
        fields = {"format": FORMAT, "format_version": FORMAT_VERSION} | asdict(self)
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"


def read_card(dataset: Path) -> DatasetCard:
    """The card of a finished dataset folder.

    Raises:
        PrepError: the folder has no card (an unfinished build), or the card is of another format.
    """
    path = dataset / CARD_NAME
    if not path.is_file():
        raise PrepError(
            f"{dataset} has no {CARD_NAME}: it is not a dataset, or its build has not finished; "
            "run bigearth-prep build-shards again to finish it"
        )
    try:
        return parse_card(path.read_text(encoding="utf-8"))
    except (KeyError, TypeError, ValueError) as error:
        raise PrepError(
            f"{path} is not a readable card ({error!r}); copy the dataset again, or build it "
            "again with --overwrite"
        ) from error


def parse_card(text: str) -> DatasetCard:
    """The card whose `to_json` is this text.

    Raises:
        KeyError: a field is missing.
        TypeError: a field is of another kind.
        ValueError: the text is not JSON, or the card is of another format or version.
    """
    fields = json.loads(text)
    found = (fields["format"], fields["format_version"])
    if found != (FORMAT, FORMAT_VERSION):
        raise ValueError(f"format is {found}, this version reads {(FORMAT, FORMAT_VERSION)}")
    normalization = fields["normalization"]
    parameters = {
        name: BandParameters(**values) for name, values in normalization["parameters"].items()
    }
    return DatasetCard(
        created_by=fields["created_by"],
        source=fields["source"],
        patch=PatchCard(**fields["patch"]),
        sensors={name: _sensor_of(values) for name, values in fields["sensors"].items()},
        normalization=NormalizationCard(**(normalization | {"parameters": parameters})),
        labels=LabelCard(
            nomenclature=fields["labels"]["nomenclature"],
            classes=tuple(fields["labels"]["classes"]),
        ),
        splits={name: _split_of(values) for name, values in fields["splits"].items()},
        tables=fields.get("tables", {}),
    )


def _sensor_of(values: dict[str, Any]) -> SensorCard:
    return SensorCard(
        bands=tuple(values["bands"]),
        dtype=values["dtype"],
        unit=values["unit"],
        scale=tuple(values["scale"]),
        offset=tuple(values["offset"]),
    )


def _split_of(values: dict[str, Any]) -> SplitCard:
    shards = tuple(ShardCard(**shard) for shard in values["shards"])
    zarr = values.get("zarr")
    return SplitCard(samples=values["samples"], shards=shards, zarr=zarr and _zarr_of(zarr))


def _zarr_of(values: dict[str, Any]) -> ZarrCard:
    shards = tuple(ShardCard(**shard) for shard in values["shards"])
    return ZarrCard(samples_per_shard=values["samples_per_shard"], shards=shards)
