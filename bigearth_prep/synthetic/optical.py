"""Sentinel-2 bands of a made-up patch: linear mixing of materials, season, weather and light.

A pixel's reflectance is the sum of its materials' spectra, weighted by their shares. Light and
haze are the same for the whole patch, so that 20 m and 60 m bands are exact area means.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt16

from bigearth_prep.bands import S2_BANDS
from bigearth_prep.synthetic.cover import COVER_TYPES, LandCover
from bigearth_prep.synthetic.textures import PATCH_PX, Field, draw_smooth_fields

Pixels = UInt16[np.ndarray, "height width"]
Shares = Float[np.ndarray, "material 120 120"]

_SPECTRA: dict[str, tuple[int, ...]] = {
    "needles": (150, 200, 350, 240, 560, 1500, 1800, 1900, 2000, 2050, 900, 420),
    "leaves": (160, 220, 480, 280, 820, 2500, 3100, 3300, 3400, 3400, 1700, 760),
    "grass": (220, 320, 640, 400, 1050, 2600, 3200, 3400, 3500, 3500, 2050, 1050),
    "crop": (200, 300, 620, 360, 1000, 2900, 3700, 3900, 4000, 3900, 1900, 900),
    "litter": (400, 560, 850, 1050, 1350, 1700, 1900, 2050, 2200, 2200, 2700, 1900),
    "soil": (450, 650, 950, 1250, 1500, 1700, 1850, 2000, 2150, 2200, 2800, 2300),
    "built": (850, 1050, 1250, 1400, 1550, 1750, 1850, 1950, 2050, 2100, 2250, 2000),
    "sand": (1200, 1700, 2300, 2700, 2950, 3050, 3150, 3250, 3350, 3200, 3700, 3200),
    "mud": (400, 550, 750, 850, 950, 1000, 1000, 1000, 1000, 950, 750, 500),
    "lake": (260, 240, 330, 250, 200, 130, 110, 90, 80, 80, 30, 20),
    "sea": (340, 330, 280, 130, 80, 60, 50, 40, 30, 40, 20, 10),
    "snow": (7400, 7800, 7600, 7700, 7600, 7400, 7300, 7200, 7000, 6500, 900, 700),
    "cloud": (4600, 4700, 4600, 4700, 4800, 5000, 5100, 5200, 5200, 4500, 3700, 2900),
}
"""Reflectance x 10^4 of each material in full leaf, in the order of `S2_BANDS`."""

_MATERIALS = tuple(_SPECTRA)
_LIGHT_SPREAD = 0.12
"""Standard deviation, between images, of the logarithm of how bright the light is."""

_HAZE_SPREAD_DN = 60.0
"""Typical haze of an image, in digital numbers of its haziest band."""

_CLASS_BRIGHTNESS_SPREAD = 0.08
_CLASS_MIXTURE_SPREAD = 0.06
"""How a class's brightness and its share of accent vary between images."""

_HAZE = np.array((1.0, 0.85, 0.6, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.2, 0.05, 0.02))
_MOISTURE_DARKENING = {"soil": 0.45, "litter": 0.25, "sand": 0.3, "built": 0.1}
_CANOPY = frozenset(("needles", "leaves"))
_WATER = frozenset(("lake", "sea"))

_GROUND = np.array([_MATERIALS.index(kind.ground) for kind in COVER_TYPES])
_ACCENT = np.array([_MATERIALS.index(kind.accent) for kind in COVER_TYPES])
_ACCENT_SHARE = np.array([kind.accent_share for kind in COVER_TYPES])
_CONTRAST = np.array([kind.contrast for kind in COVER_TYPES])

_BANDS_OF_SIZE = {
    px: [index for index, band in enumerate(S2_BANDS) if band.native_px == px]
    for px in sorted({band.native_px for band in S2_BANDS})
}
"""Positions in `S2_BANDS` by side of the native raster, in pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What is special about one optical image."""

    day_of_year: int
    latitude_deg: float
    snow: bool
    """Snow lies on most of the ground."""

    cloud: bool
    """Thin clouds hang over part of the patch."""


def render_optical(cover: LandCover, view: View, rng: np.random.Generator) -> dict[str, Pixels]:
    """Digital numbers (reflectance x 10^4, at least 1) of all 12 bands at native resolution."""
    shares = _draw_shares(cover, rng)
    if view.snow:
        shares = _blend(shares, "snow", _draw_snow_share(cover, rng))
    if view.cloud:
        shares = _blend(shares, "cloud", _draw_cloud_share(rng))
    used = shares.any(axis=(1, 2))
    shares, spectra = shares[used], _draw_spectra(view, rng)[used]
    haze = (_HAZE * abs(rng.normal(0, _HAZE_SPREAD_DN))).astype(np.float32)
    bands: dict[str, Pixels] = {}
    for px, indices in _BANDS_OF_SIZE.items():
        mixed = np.einsum(
            "mb,mhw->bhw", spectra[:, indices], _area_means(shares, px), optimize=True
        )
        reflectance = mixed + haze[indices, None, None]
        noise = rng.standard_normal(reflectance.shape, dtype=np.float32)
        noisy = np.rint(reflectance + noise * (8 + 0.01 * reflectance))
        names = [S2_BANDS[index].name for index in indices]
        bands |= zip(names, np.clip(noisy, 1, 65535).astype(np.uint16), strict=True)
    return bands


def _draw_shares(cover: LandCover, rng: np.random.Generator) -> Shares:
    """Share of each material in each pixel, times how bright its class happens to be here."""
    shift = rng.normal(0, _CLASS_MIXTURE_SPREAD, len(COVER_TYPES))
    brightness = np.exp(rng.normal(0, _CLASS_BRIGHTNESS_SPREAD, len(COVER_TYPES)))
    accent = (_ACCENT_SHARE + shift)[cover.classes] + _CONTRAST[cover.classes] * cover.texture
    accent = np.clip(accent, 0, 1).astype(np.float32)
    shares = np.zeros((len(_MATERIALS), PATCH_PX, PATCH_PX), dtype=np.float32)
    down, right = np.indices(accent.shape)
    level = brightness.astype(np.float32)[cover.classes]
    shares[_GROUND[cover.classes], down, right] = level * (1 - accent)
    shares[_ACCENT[cover.classes], down, right] = level * accent
    return shares


def _draw_spectra(view: View, rng: np.random.Generator) -> Float[np.ndarray, "material band"]:
    """Spectra in this season, soil moisture and light."""
    table = {name: np.array(spectrum, dtype=np.float64) for name, spectrum in _SPECTRA.items()}
    for name, green in _greenness(view.day_of_year, view.latitude_deg).items():
        table[name] = green * table[name] + (1 - green) * table["litter"]
    moisture = rng.uniform(0, 1)
    for name, darkening in _MOISTURE_DARKENING.items():
        table[name] = table[name] * (1 - darkening * moisture)
    light = np.exp(rng.normal(0, _LIGHT_SPREAD))
    spectra: Float[np.ndarray, "material band"] = light * np.stack(list(table.values()))
    return spectra.astype(np.float32)


def _greenness(day_of_year: int, latitude_deg: float) -> dict[str, float]:
    """Share of each plant cover that is green: leaves follow the season, crops ripen early."""
    half_season_days = 130 - 2.0 * (latitude_deg - 37)
    leaf = 1 / (1 + np.exp((abs(day_of_year - 205) - half_season_days) / 10))
    ripening = (day_of_year - (120 + 2.0 * (latitude_deg - 37))) / 50
    return {
        "leaves": float(leaf),
        "grass": float(0.4 + 0.6 * leaf),
        "crop": float(0.25 + 0.75 * np.exp(-(ripening**2))),
    }


def _blend(shares: Shares, material: str, amount: Field) -> Shares:
    """The shares with this much of the surface replaced by one material."""
    blended: Shares = shares * (1 - amount)
    blended[_MATERIALS.index(material)] += amount
    return blended


def _draw_snow_share(cover: LandCover, rng: np.random.Generator) -> Field:
    """Snow in patches on open ground, less under trees, none on water."""
    hold = np.array([_snow_hold(kind.ground) for kind in COVER_TYPES])
    patches = draw_smooth_fields(rng, 1, 4.0)[0]
    share: Field = np.clip(rng.uniform(0.2, 0.6) + 0.25 * patches, 0, 1) * hold[cover.classes]
    return share


def _snow_hold(ground: str) -> float:
    if ground in _WATER:
        return 0.0
    return 0.4 if ground in _CANOPY else 1.0


def _draw_cloud_share(rng: np.random.Generator) -> Field:
    share: Field = np.clip(
        rng.uniform(0.1, 0.4) + 0.3 * draw_smooth_fields(rng, 1, 12.0)[0], 0, 0.9
    )
    return share


def _area_means(shares: Shares, px: int) -> Float[np.ndarray, "material px px"]:
    """The shares averaged over the pixels of a coarser grid."""
    if px == PATCH_PX:
        return shares
    step = PATCH_PX // px
    means: Float[np.ndarray, "material px px"] = np.mean(
        shares.reshape(len(shares), px, step, px, step), axis=(2, 4)
    )
    return means
