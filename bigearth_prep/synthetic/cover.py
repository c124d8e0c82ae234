"""Land cover of one place: which class each pixel has, and what its texture looks like.

Numbers are chosen for plausible images, after textbook spectra and C-band backscatter, not fitted.
Some classes share spectra and texture and differ in backscatter only, others the reverse: each
sensor must know something that the other does not.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from bigearth_prep.labels import CLASSES
from bigearth_prep.synthetic.textures import (
    PATCH_PX,
    TextureName,
    draw_smooth_fields,
    draw_texture,
)

MIN_LABEL_SHARE = 0.03
"""Smallest share of a patch's area that makes a class one of its labels."""

_CLASS_COUNT_SHARES = (0.28, 0.26, 0.20, 0.14, 0.08, 0.04)
"""How many places hold one, two … six classes, before small remainders lose their label."""

_REGION_SCALES_PX = (9.0, 16.0)
"""Range of the sizes of regions."""


@dataclass(frozen=True, slots=True)
class CoverType:
    """How one of the 19 classes looks to both sensors."""

    ground: str
    """Material that prevails."""

    accent: str
    """Material mixed into it."""

    accent_share: float
    """Mean share of the accent."""

    contrast: float
    """Standard deviation of the accent's share that the texture makes."""

    texture: TextureName
    vv_db: float
    vh_db: float
    relief_db: float
    """Standard deviation of backscatter that the texture makes, in dB."""


COVER_TYPES: tuple[CoverType, ...] = (
    # Urban fabric
    CoverType("built", "grass", 0.45, 0.25, "blocks", -6.5, -13.5, 3.0),
    # Industrial or commercial
    CoverType("built", "grass", 0.45, 0.25, "blocks", -2.0, -11.5, 4.0),
    # Arable land
    CoverType("soil", "crop", 0.50, 0.30, "fields", -10.5, -18.5, 2.0),
    # Permanent crops
    CoverType("soil", "leaves", 0.45, 0.25, "rows", -9.5, -15.8, 1.5),
    # Pastures
    CoverType("grass", "litter", 0.25, 0.15, "fields", -13.5, -19.5, 1.2),
    # Complex cultivation
    CoverType("soil", "crop", 0.50, 0.30, "gardens", -10.2, -17.0, 2.0),
    # Agriculture with nature
    CoverType("crop", "leaves", 0.40, 0.25, "clumps", -9.8, -15.5, 2.0),
    # Agro-forestry
    CoverType("litter", "leaves", 0.30, 0.25, "trees", -11.5, -16.5, 2.0),
    # Broad-leaved forest
    CoverType("leaves", "litter", 0.15, 0.12, "canopy", -8.5, -13.2, 0.8),
    # Coniferous forest
    CoverType("needles", "litter", 0.15, 0.12, "canopy", -8.5, -13.2, 0.8),
    # Mixed forest
    CoverType("needles", "leaves", 0.50, 0.25, "canopy", -8.5, -13.2, 0.8),
    # Natural grassland
    CoverType("grass", "litter", 0.35, 0.15, "clumps", -14.0, -21.5, 1.2),
    # Moors and heathland
    CoverType("litter", "needles", 0.40, 0.20, "clumps", -12.5, -17.8, 1.5),
    # Transitional woodland
    CoverType("grass", "leaves", 0.50, 0.25, "canopy", -10.5, -14.8, 1.5),
    # Beaches and dunes
    CoverType("sand", "litter", 0.10, 0.08, "swell", -16.5, -24.5, 0.8),
    # Inland wetlands
    CoverType("grass", "litter", 0.35, 0.15, "clumps", -8.0, -20.5, 2.0),
    # Coastal wetlands
    CoverType("mud", "grass", 0.40, 0.25, "pools", -13.0, -22.5, 2.5),
    # Inland waters
    CoverType("lake", "mud", 0.02, 0.02, "swell", -20.0, -28.0, 0.8),
    # Marine waters
    CoverType("sea", "lake", 0.02, 0.02, "swell", -20.0, -28.0, 0.8),
)
"""The look of each class, in official order."""


@dataclass(frozen=True, slots=True)
class LandCover:
    """What lies on one patch of ground, whatever the season."""

    classes: UInt8[np.ndarray, "120 120"]
    """Class of each pixel, as a position in `COVER_TYPES`."""

    texture: Float32[np.ndarray, "120 120"]
    """Texture of each pixel's class there, of zero mean and unit variance."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes that fill enough of the patch, in official order."""
        shares = np.bincount(self.classes.ravel(), minlength=len(CLASSES)) / self.classes.size
        return tuple(
            name for name, share in zip(CLASSES, shares, strict=True) if share >= MIN_LABEL_SHARE
        )


def draw_land_cover(rng: np.random.Generator, class_weights: tuple[int, ...]) -> LandCover:
    """The land cover of a place where classes occur in these proportions."""
    chances = np.asarray(class_weights) / sum(class_weights)
    wanted = 1 + int(rng.choice(len(_CLASS_COUNT_SHARES), p=_CLASS_COUNT_SHARES))
    count = min(wanted, int(np.count_nonzero(chances)))
    present = rng.choice(len(CLASSES), size=count, replace=False, p=chances)
    scale_px = rng.uniform(*_REGION_SCALES_PX)
    rank = draw_smooth_fields(rng, count, scale_px) + rng.normal(0, 0.4, (count, 1, 1))
    classes = present[rank.argmax(axis=0)].astype(np.uint8)
    texture = np.zeros((PATCH_PX, PATCH_PX), dtype=np.float32)
    for index in np.unique(classes):
        inside = classes == index
        texture[inside] = draw_texture(rng, COVER_TYPES[index].texture)[inside]
    return LandCover(classes=classes, texture=texture)
