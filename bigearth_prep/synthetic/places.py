"""Where, when and under which names: the plan of a made-up archive, before any pixel is drawn."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from bigearth_prep.bands import PATCH_M
from bigearth_prep.synthetic.geotiff import PatchGrid
from bigearth_prep.synthetic.tiles import TILES, Scene, Tile

PATCHES_PER_SIDE = 91
"""Columns and rows of patches in a tile."""

MAX_PAIRS = 100_000
"""What surely fits into the innermost rings of all tiles, which hold a quarter of the places."""

_SPLIT_CYCLE = ("train", "validation", "train", "test")
_RING_FROM = {"train": 0, "validation": 13, "test": 23}
"""Distance to the tile border, in patches, at which each split's ring begins; ascending."""

_VISIT_SHARES = (0.4, 0.3, 0.2, 0.1)
"""How many places are seen once, twice, three and four times."""

_CLOUD_SHARE = 0.03


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One patch of ground."""

    number: int
    """Counts the places of an archive; seeds all that is drawn here."""

    tile: Tile
    column: int
    """Eastward from the tile's western edge, in patches."""

    row: int
    """Southward from the tile's northern edge, in patches."""

    split: str

    @property
    def grid(self) -> PatchGrid:
        """UTM zone and upper left corner of the patch."""
        return PatchGrid(
            epsg=self.tile.epsg,
            ulx=self.tile.ulx + PATCH_M * self.column,
            uly=self.tile.uly - PATCH_M * self.row,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedPair:
    """One place seen by both sensors at about one time."""

    place: Place
    visit: int
    """Counts the scenes of one place."""

    scene: Scene
    snow: bool
    cloud: bool

    @property
    def v1_name(self) -> str:
        """Name of the Sentinel-2 patch in version 1: column and row are not padded."""
        return f"{self.scene.v1_prefix}_{self.place.column}_{self.place.row}"

    @property
    def product(self) -> str:
        """Name of the Sentinel-2 product in version 2."""
        return f"{self.scene.v2_prefix}_T{self.place.tile.name}"

    @property
    def v2_name(self) -> str:
        """Name of the Sentinel-2 patch in version 2: column and row have two digits."""
        return f"{self.product}_{self.place.column:02}_{self.place.row:02}"

    @property
    def s1_name(self) -> str:
        """Name of the Sentinel-1 patch in both versions: column and row are not padded."""
        place = self.place
        return f"{self.scene.s1_prefix}_{place.tile.name}_{place.column}_{place.row}"


def plan_pairs(count: int, seed: int) -> tuple[PlannedPair, ...]:
    """As many pairs as asked for, of places seen one to four times each.

    Half of the places are for training, a quarter each for validation and test, by rings around
    the tile's centre as in version 2: no place is in two splits. Every tile occurs once before
    any occurs twice, and four pairs or more hold all splits.

    Args:
        count: How many pairs, 1 to `MAX_PAIRS`.
        seed: Same seed, same plan; a larger count begins with the pairs of a smaller one.
    """
    rng = np.random.default_rng([seed, 0])
    places = _draw_places(rng)
    pairs: list[PlannedPair] = []
    while len(pairs) < count:
        pairs += _visit_places([next(places) for _ in _SPLIT_CYCLE], rng)
    return tuple(pairs[:count])


def _draw_places(rng: np.random.Generator) -> Iterator[Place]:
    rings = _split_rings()
    free = {
        (index, split): rng.permutation(ring).tolist()
        for index in range(len(TILES))
        for split, ring in rings.items()
    }
    number = 0
    while True:
        for index in rng.permutation(len(TILES)).tolist():
            split = _SPLIT_CYCLE[number % len(_SPLIT_CYCLE)]
            column, row = free[index, split].pop()
            yield Place(number=number, tile=TILES[index], column=column, row=row, split=split)
            number += 1


def _split_rings() -> dict[str, Int[np.ndarray, "position 2"]]:
    """Column and row of every patch in each split's ring."""
    side = np.arange(PATCHES_PER_SIDE)
    to_edge = np.minimum(side, side[::-1])
    to_border = np.minimum(to_edge[:, None], to_edge[None, :])
    ring = np.searchsorted(tuple(_RING_FROM.values()), to_border, side="right") - 1
    return {split: np.argwhere(ring == number) for number, split in enumerate(_RING_FROM)}


def _visit_places(places: list[Place], rng: np.random.Generator) -> list[PlannedPair]:
    """All pairs of these places; first visits come first, so that a cut spares every place."""
    pairs = []
    for place in places:
        scenes = place.tile.scenes
        times = 1 + int(rng.choice(len(_VISIT_SHARES), p=_VISIT_SHARES))
        chosen = rng.permutation(len(scenes))[:times]
        pairs += [
            _plan_pair(place, visit, scenes[index], rng) for visit, index in enumerate(chosen)
        ]
    return sorted(pairs, key=lambda pair: pair.visit)


def _plan_pair(place: Place, visit: int, scene: Scene, rng: np.random.Generator) -> PlannedPair:
    chance = rng.random()
    snow = bool(chance < scene.snow_share)
    cloud = bool(not snow and chance > 1 - _CLOUD_SHARE)
    return PlannedPair(place=place, visit=visit, scene=scene, snow=snow, cloud=cloud)
