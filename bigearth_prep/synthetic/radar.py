"""Sentinel-1 backscatter of a made-up patch, in dB: class, texture, weather, and speckle."""

import numpy as np
from jaxtyping import Float, Float32

from bigearth_prep.synthetic.cover import COVER_TYPES, LandCover
from bigearth_prep.synthetic.textures import PATCH_PX, draw_complex_fields

Pixels = Float32[np.ndarray, "120 120"]

LOOKS = 4
"""Equivalent number of looks, as measured in BigEarthNet."""

_SPECKLE_SCALE_PX = 1.0
"""Makes the intensities of neighbouring pixels correlate by exp(-1/2)."""

_IMAGE_SPREAD_DB = 0.7
"""Standard deviation between images of an offset that both polarizations share, in dB."""

_CLASS_SPREAD_DB = 0.4
_MOISTURE_SPREAD_DB = 0.6
_WIND_SPREAD_DB = 1.0
"""How classes vary between images: each alone, open ground together, water together."""

_TREND_SPREAD_DB = 0.4
"""Standard deviation of half the change from one side of an image to the other."""

_MEAN_DB = np.array([(kind.vh_db, kind.vv_db) for kind in COVER_TYPES]).T
_RELIEF_DB = np.array([kind.relief_db for kind in COVER_TYPES])
_IS_WATER = np.array([kind.ground in {"lake", "sea"} for kind in COVER_TYPES])
_IS_OPEN = np.array([kind.ground in {"soil", "sand", "mud", "grass"} for kind in COVER_TYPES])


def render_radar(cover: LandCover, rng: np.random.Generator) -> dict[str, Pixels]:
    """Backscatter of VH and VV, in dB, with the speckle of a multi-look intensity image."""
    mean_db = _MEAN_DB + _draw_class_offsets_db(rng)
    backscatter_db = mean_db[:, cover.classes] + _RELIEF_DB[cover.classes] * cover.texture
    backscatter_db = backscatter_db + _draw_image_offset_db(rng) + _draw_incidence_trend_db(rng)
    speckle_db = 10 * np.log10(draw_speckle(rng, 2))
    vh_db, vv_db = (backscatter_db + speckle_db).astype(np.float32)
    return {"VH": vh_db, "VV": vv_db}


def draw_speckle(rng: np.random.Generator, count: int) -> Float[np.ndarray, "image 120 120"]:
    """Gamma-distributed factors of mean 1 and variance 1 / `LOOKS`, correlated in space.

    Multi-look intensity is the mean of that many squared magnitudes of circular Gaussian fields.
    """
    fields = draw_complex_fields(rng, (count, LOOKS), _SPECKLE_SCALE_PX)
    intensity: Float[np.ndarray, "image 120 120"] = np.mean(fields.real**2 + fields.imag**2, axis=1)
    return intensity


def _draw_class_offsets_db(rng: np.random.Generator) -> Float[np.ndarray, "polarization type"]:
    """How each class departs from its mean on this day: roughness, moisture, wind on water."""
    own = rng.normal(0, _CLASS_SPREAD_DB, _MEAN_DB.shape)
    wind = rng.normal(0, _WIND_SPREAD_DB) * _IS_WATER
    moisture = rng.normal(0, _MOISTURE_SPREAD_DB) * _IS_OPEN
    return own + wind + moisture


def _draw_image_offset_db(rng: np.random.Generator) -> float:
    """Calibration and view geometry, which no class can be told from."""
    return float(rng.normal(0, _IMAGE_SPREAD_DB))


def _draw_incidence_trend_db(rng: np.random.Generator) -> Float[np.ndarray, "1 120"]:
    """Backscatter falls across the patch as the beam flattens, from either side."""
    return np.linspace(-1, 1, PATCH_PX)[None, :] * rng.normal(0, _TREND_SPREAD_DB)
