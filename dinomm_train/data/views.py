"""All crops of a batch: cut, changed in colour, and with sensors dropped."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64, Int8
from torch import Tensor

from bigearth_prep.bands import DECIBEL
from bigearth_prep.card import DatasetCard
from dinomm_train.config import ViewConfig
from dinomm_train.data.crops import CROP_DRAWS, cut_crops, draw_boxes
from dinomm_train.data.draws import Purpose, ViewKey, view_uniforms
from dinomm_train.data.inputs import InputScaling
from dinomm_train.data.published_views import (
    PUBLISHED_DRAWS,
    ChangeProbabilities,
    change_as_published,
)
from dinomm_train.data.radiometry import change_radiometry, radiometry_draws
from dinomm_train.data.sensor_drop import (
    SENSOR_DROP_DRAWS,
    draw_sensor_states,
    drop_sensors,
)
from dinomm_train.errors import TrainError


@dataclass(frozen=True, kw_only=True, slots=True)
class Views:
    """The crops of one step. View comes first: crop `i` is of sample `i % batch`."""

    teacher_crops: Float32[Tensor, "_ channel _ _"]
    """Global crops as the teacher sees them."""

    student_crops: tuple[Float32[Tensor, "_ channel _ _"], ...]
    """Global crops, then local crops where there are any, as the student sees them."""

    states: Int8[np.ndarray, " crop"]
    """Which sensors each of the student's crops has lost, global crops first."""

    key: ViewKey
    """Of which samples, in which pass, these are views."""

    @property
    def view_count(self) -> int:
        """Student crops per sample."""
        return len(self.states) // len(self.key.sample_ids)

    def split(self, samples: int) -> Iterator["Views"]:
        """The same views of so many samples at a time, all their views together."""
        count = len(self.key.sample_ids)
        if samples >= count:
            yield self
            return
        for first in range(0, count, samples):
            chosen = slice(first, first + samples)
            yield Views(
                teacher_crops=_of_samples(self.teacher_crops, count, chosen),
                student_crops=tuple(
                    _of_samples(crops, count, chosen) for crops in self.student_crops
                ),
                states=self.states.reshape(-1, count)[:, chosen].ravel(),
                key=replace(self.key, sample_ids=self.key.sample_ids[chosen]),
            )


def _of_samples(
    crops: Float32[Tensor, "_ channel _ _"], samples: int, chosen: slice
) -> Float32[Tensor, "_ channel _ _"]:
    return crops.view(-1, samples, *crops.shape[1:])[:, chosen].flatten(0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class _ViewGroup:
    """Views of one size."""

    views: range
    """Their numbers; global crops come first."""

    crop_px: int
    area: tuple[float, float]
    blur: tuple[float, ...]
    """Probability of blur, per view."""


def make_views(
    images: Float32[Tensor, "batch channel height width"],
    key: ViewKey,
    config: ViewConfig,
    scaling: InputScaling,
) -> Views:
    """The views of a batch of network inputs, made where the batch is.

    What a sample's views look like depends on the run's seed, the epoch and the sample alone. The
    published chain is for input that spans [0, 1]: see `require_chain`.
    """
    drop = config.sensor_drop
    groups = _view_groups(config)
    whole = [_whole_crops(images, key, group, config, scaling) for group in groups]
    states = [_draw_states(key, group, drop.probability, scaling) for group in groups]
    seen = tuple(
        drop_sensors(crops, lost, scaling.channels, drop.fill)
        for crops, lost in zip(whole, states, strict=True)
    )
    return Views(
        teacher_crops=seen[0] if drop.drop_teacher else whole[0],
        student_crops=seen,
        states=np.concatenate(states),
        key=key,
    )


def require_chain(card: DatasetCard, config: ViewConfig) -> None:
    """Return nothing where the chain of colour operations means something for this dataset.

    Raises:
        TrainError: it changes codes where there are none, or radar in dB that is not in dB.
    """
    if config.chain == "published":
        if InputScaling.of(card).valid_range is None:
            raise TrainError(
                "views.chain = published works on 8-bit codes, but this dataset is standardized; "
                "build it with --normalize paper, or set views.chain to fixed"
            )
        return
    radar, chain = card.sensors.get("s1"), config.radiometry
    changes_radar = chain.s1_speckle or (chain.s1_gain and chain.s1_gain_db)
    if radar is not None and radar.unit != DECIBEL and changes_radar:
        raise TrainError(
            f"views.chain = fixed offsets and speckles radar in {DECIBEL}, but this dataset's is "
            f"in {radar.unit!r}; build it from backscatter in {DECIBEL}, or leave radar as it is "
            "with --set views.radiometry.s1_gain=0 --set views.radiometry.s1_speckle=0"
        )


def _view_groups(config: ViewConfig) -> list[_ViewGroup]:
    crops = config.crops
    chain = config.radiometry if config.chain == "fixed" else config.published
    first, others, local = chain.blur
    groups = [
        _ViewGroup(
            views=range(crops.global_count),
            crop_px=crops.global_px,
            area=crops.global_scale,
            blur=(first, *(others,) * (crops.global_count - 1)),
        )
    ]
    if crops.local_count:
        groups.append(
            _ViewGroup(
                views=range(crops.global_count, crops.global_count + crops.local_count),
                crop_px=crops.local_px,
                area=crops.local_scale,
                blur=(local,) * crops.local_count,
            )
        )
    return groups


def _whole_crops(
    images: Float32[Tensor, "batch channel height width"],
    key: ViewKey,
    group: _ViewGroup,
    config: ViewConfig,
    scaling: InputScaling,
) -> Float32[Tensor, "crop channel side side"]:
    """The group's crops, changed in colour, with both sensors."""
    uniforms = _crop_uniforms(key, Purpose.CROP, group, CROP_DRAWS)
    boxes = draw_boxes(uniforms, config.crops, group.area, images.shape[-1])
    crops = cut_crops(images, boxes, crop_px=group.crop_px, antialias=config.crops.antialias)
    blur = np.repeat(np.array(group.blur), len(images))
    if config.chain == "fixed":
        draws = radiometry_draws(images.shape[1])
        uniforms = _crop_uniforms(key, Purpose.RADIOMETRY, group, draws)
        return change_radiometry(crops, uniforms, blur, config.radiometry, scaling)
    uniforms = _crop_uniforms(key, Purpose.RADIOMETRY, group, PUBLISHED_DRAWS)
    is_second = np.repeat(np.array(group.views) == 1, len(images))
    probabilities = ChangeProbabilities(blur=blur, solarize=is_second * config.published.solarize)
    return change_as_published(crops, uniforms, probabilities, config.published, scaling.channels)


def _draw_states(
    key: ViewKey, group: _ViewGroup, probability: float, scaling: InputScaling
) -> Int8[np.ndarray, " crop"]:
    """Which sensors go; none where the dataset has but one."""
    uniforms = _crop_uniforms(key, Purpose.SENSOR_DROP, group, SENSOR_DROP_DRAWS)
    return draw_sensor_states(uniforms, probability if scaling.channels.has_both else 0.0)


def _crop_uniforms(
    key: ViewKey, purpose: Purpose, group: _ViewGroup, draws: int
) -> Float64[np.ndarray, "crop draw"]:
    return view_uniforms(key, purpose, views=group.views, draws=draws).reshape(-1, draws)
