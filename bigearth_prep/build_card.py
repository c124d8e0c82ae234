"""The card of a build, from its plan, its recipe and the shards that were written."""

from collections.abc import Sequence

import bigearth_prep
from bigearth_prep.bands import Band, bands_of
from bigearth_prep.card import (
    SPLITS,
    DatasetCard,
    LabelCard,
    NormalizationCard,
    PatchCard,
    SensorCard,
    ShardCard,
    SplitCard,
    ZarrCard,
)
from bigearth_prep.collection import Collection
from bigearth_prep.plan import BuildPlan
from bigearth_prep.sample import SampleRecipe
from bigearth_prep.zarr_repack import PixelArray


def card_of_build(
    plan: BuildPlan,
    collection: Collection,
    recipe: SampleRecipe,
    statistics_source: str,
    splits: dict[str, SplitCard],
    tables: dict[str, str],
) -> DatasetCard:
    """The card of a build that stored these splits, and tables of these checksums."""
    return DatasetCard(
        created_by=f"bigearth-prep {bigearth_prep.__version__}",
        source=plan.source,
        patch=PatchCard(
            size_px=recipe.size_px,
            resolution_m=collection.side_px * collection.resolution_m / recipe.size_px,
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
            order=recipe.order,
        ),
        labels=LabelCard(nomenclature=collection.nomenclature, classes=collection.classes),
        splits=splits,
        tables=tables,
    )


def split_cards(tars: Sequence[ShardCard], arrays: Sequence[PixelArray]) -> dict[str, SplitCard]:
    """The card of each split that holds a sample, from its tars, its Zarr arrays, or both."""
    cards = {split: _split_card(split, tars, arrays) for split in SPLITS}
    return {split: card for split, card in cards.items() if card.samples}


def _split_card(split: str, tars: Sequence[ShardCard], arrays: Sequence[PixelArray]) -> SplitCard:
    own = tuple(tar for tar in tars if tar.name.startswith(f"{split}/") and tar.samples)
    pixels = [array for array in arrays if array.split == split and array.shards]
    if not pixels:
        return SplitCard(samples=sum(tar.samples for tar in own), shards=own)
    zarr = ZarrCard(
        samples_per_shard=pixels[0].capacity,
        shards=tuple(shard for array in pixels for shard in array.shards),
    )
    return SplitCard(
        samples=sum(shard.samples for shard in pixels[0].shards), shards=own, zarr=zarr
    )


def _sensor_card(bands: tuple[Band, ...], recipe: SampleRecipe) -> SensorCard:
    encodings = [recipe.encodings[band] for band in bands]
    return SensorCard(
        bands=tuple(band.name for band in bands),
        dtype=encodings[0].dtype,
        unit=bands[0].unit,
        scale=tuple(encoding.scale for encoding in encodings),
        offset=tuple(encoding.offset for encoding in encodings),
    )
