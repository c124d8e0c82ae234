"""What the student and the teacher see of a patch: crops, radiometry, and the sensors left in."""

import math
from dataclasses import dataclass, field
from typing import Literal

from dinomm_train.config_checks import (
    require_not_negative,
    require_positive,
    require_probabilities,
    require_rising,
)

Chain = Literal["fixed", "published"]
"""Which colour operations follow the crop: per sensor in float, or as the published code ran."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CropConfig:
    """Random resized crops, drawn anew for each sample and view (bicubic, half-pixel centres)."""

    global_px: int = 112
    """Side of a global crop, in pixels; teacher and student see these."""

    local_px: int = 48
    """Side of a local crop, in pixels; only the student sees these."""

    global_count: int = 2
    """Global crops per patch."""

    local_count: int = 8
    """Local crops per patch; zero turns multi-crop off."""

    global_scale: tuple[float, float] = (0.4, 1.0)
    """Least and greatest share of the patch's area under a global crop."""

    local_scale: tuple[float, float] = (0.05, 0.4)
    """The same for a local crop."""

    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and greatest ratio of width to height in the patch, drawn evenly in its logarithm."""

    antialias: bool = False
    """Whether shrinking averages over the pixels between; off in the published code."""

    horizontal_flip: float = 0.5
    """Probability of mirroring left and right."""

    vertical_flip: float = 0.5
    """Probability of mirroring top and bottom; 0 in the published code."""

    quarter_turns: float = 0.5
    """Probability of a further turn by 90 degrees; 0 in the published code."""

    def __post_init__(self) -> None:
        require_probabilities(self, "horizontal_flip", "vertical_flip", "quarter_turns")
        if self.global_count < 2:
            raise ValueError(f"global_count must be at least 2, got {self.global_count}")
        require_not_negative(self, "local_count")
        require_positive(self, "global_px", "local_px")
        require_rising(self, "global_scale", "local_scale", most=1.0)
        require_rising(self, "aspect")


@dataclass(frozen=True, kw_only=True, slots=True)
class RadiometryConfig:
    """The `fixed` chain: each sensor changes in its own physics, in float, and is clipped."""

    s2_jitter: float = 0.8
    """Probability that an optical crop is brightened and contrasted."""

    s2_gain: float = 0.2
    """Greatest relative change of brightness, the same for all optical bands of a crop."""

    s2_contrast: float = 0.2
    """Greatest relative change of each optical band's spread about its own mean."""

    s2_band_gain: float = 0.05
    """Greatest further change of brightness of a single optical band."""

    s2_gray: float = 0.0
    """Probability that every optical band becomes the mean of the optical bands."""

    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    """Probability of blurring the optics of the first global crop, the others, the local crops."""

    blur_sigma_px: tuple[float, float] = (0.1, 2.0)
    """Least and greatest standard deviation of the blur, in pixels of the crop."""

    s1_gain: float = 0.8
    """Probability that a radar crop's backscatter is offset."""

    s1_gain_db: float = 1.5
    """Greatest such offset, in dB either way, drawn per polarization."""

    s1_speckle: float = 0.5
    """Probability of further speckle on a radar crop."""

    s1_speckle_looks: float = 16.0
    """Shape of the unit-mean gamma law that multiplies power; more looks, less noise."""

    def __post_init__(self) -> None:
        require_probabilities(self, "s2_jitter", "s2_gray", "s1_gain", "s1_speckle")
        require_probabilities(self, "s2_gain", "s2_contrast", "s2_band_gain", "blur")
        require_not_negative(self, "s1_gain_db")
        require_positive(self, "s1_speckle_looks")
        require_rising(self, "blur_sigma_px")


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedConfig:
    """The `published` chain on 8-bit codes, with each defect of the public code as a switch."""

    jitter: float = 0.8
    """Probability of the brightness and contrast change."""

    brightness: float = 0.4
    """Greatest relative change of brightness, one factor for all channels."""

    contrast: float = 0.4
    """Greatest relative change of contrast, one factor for all channels."""

    wrap: bool = True
    """Whether codes above 255 wrap modulo 256 (D7) instead of being clipped."""

    gray: float = 0.2
    """Probability that channels are replaced by their mean."""

    gray_mixes_sensors: bool = True
    """Whether that mean runs over radar and optical channels together (D6)."""

    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    """Probability of blurring the first global crop, the others, the local crops."""

    blur_sigma_px: tuple[float, float] = (0.1, 2.0)
    """Least and greatest standard deviation of the blur, in pixels of the crop."""

    blur_s1: bool = True
    """Whether radar channels are blurred as well (D9)."""

    solarize: float = 0.2
    """Probability of solarizing the second global crop."""

    solarize_inverts_below: bool = True
    """Whether codes below 128 are inverted (D8) instead of those from 128 on."""

    solarize_s1: bool = True
    """Whether radar channels are solarized as well (D8)."""

    def __post_init__(self) -> None:
        require_probabilities(self, "jitter", "brightness", "contrast", "gray", "blur", "solarize")
        require_rising(self, "blur_sigma_px")


@dataclass(frozen=True, kw_only=True, slots=True)
class SensorDropConfig:
    """RandomSensorDrop (arXiv:2204.05381): a crop loses one whole sensor, never both."""

    probability: float = 0.5
    """Probability that a crop loses a sensor; which one is even odds."""

    fill: float = -1.0
    """Network input that stands for a missing sensor; the default is outside 8-bit data's [0, 1],
    so that it means nothing else, while the published 0 is also dark water (D10)."""

    drop_teacher: bool = True
    """Whether the teacher's crops lose sensors too, as published."""

    def __post_init__(self) -> None:
        require_probabilities(self, "probability")
        if not math.isfinite(self.fill):
            raise ValueError(f"fill must be a finite number, got {self.fill}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewConfig:
    """How one patch becomes the crops of a training step."""

    chain: Chain = "fixed"
    """Colour operations after the crop: `fixed` uses `radiometry`, `published` uses `published`."""

    crops: CropConfig = field(default_factory=CropConfig)
    """Sizes, areas and symmetries of the crops."""

    radiometry: RadiometryConfig = field(default_factory=RadiometryConfig)
    """The `fixed` chain's strengths."""

    published: PublishedConfig = field(default_factory=PublishedConfig)
    """The `published` chain's strengths and defects."""

    sensor_drop: SensorDropConfig = field(default_factory=SensorDropConfig)
    """Which crops lose a sensor."""
