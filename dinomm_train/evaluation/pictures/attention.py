"""What a network looks at in one patch, and how it tells its parts apart, sensor by sensor."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import interpolate

from dinomm_train.data.index import StoredDataset
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.errors import TrainError
from dinomm_train.evaluation.config import ExtractionConfig, SensorSet
from dinomm_train.evaluation.images import (
    blank_missing,
    choose_input_size,
    choose_sensor_sets,
    fit_images,
    read_images,
)
from dinomm_train.evaluation.pictures.patch_views import caption_of, radar_colour, true_colour
from dinomm_train.models.frozen import FrozenBackbone, require_same_input
from dinomm_train.models.layers import last_attention, last_tokens

_BOTH: SensorSet = "s1+s2"
_TITLES: dict[SensorSet, str] = {
    "s1+s2": "both sensors",
    "s2": "optical alone",
    "s1": "radar alone",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchLook:
    """One patch, and what the last block makes of it under each sensor set."""

    key: str
    caption: str
    optical: Float32[np.ndarray, "height width 3"] | None
    """True colour."""
    radar: Float32[np.ndarray, "height width 3"] | None
    attention: dict[SensorSet, Float32[np.ndarray, "head row column"]]
    """Of the CLS token over the patch's tokens."""
    components: dict[SensorSet, Float32[np.ndarray, "row column 3"]]
    """The first three principal components of the tokens, in [0, 1]; shared by all sensor sets."""


def find_patch(dataset: StoredDataset, key: str) -> tuple[StoredSplit, int]:
    """The split and position of the patch with this key.

    Raises:
        TrainError: no split holds it.
    """
    for name in dataset.card.splits:
        split = dataset.split(name)
        keys = split.table["key"].to_pylist()
        if key in keys:
            return split, keys.index(key)
    first = dataset.manifest["key"][0].as_py() if len(dataset.manifest) else "none"
    raise TrainError(
        f"{dataset.location} has no patch {key!r}; its manifest.parquet lists the keys, such as "
        f"{first}"
    )


def look_at_patch(
    frozen: FrozenBackbone, dataset: StoredDataset, key: str, config: ExtractionConfig
) -> PatchLook:
    """The patch under every sensor set that the dataset allows.

    Raises:
        TrainError: there is no such patch, or the network was trained on another input.
    """
    require_same_input(frozen, dataset.card, dataset.location)
    split, position = find_patch(dataset, key)
    size = choose_input_size(frozen, dataset.card.patch.size_px, config)
    (image,) = read_images(dataset, split, [np.array([position])], torch.device("cpu"))
    fitted = fit_images(image, size)
    sensor_sets = choose_sensor_sets(dataset, config.sensor_sets)
    attention, tokens = {}, {}
    network = frozen.network.cpu()
    with torch.no_grad():
        for sensors in sorted(sensor_sets, key=list(_TITLES).index):
            seen = blank_missing(fitted, frozen.expects, sensors)
            attention[sensors] = last_attention(network, seen)[0].numpy()
            (last,) = last_tokens(network, seen, blocks=1)
            tokens[sensors] = last[0, network.vit.num_prefix_tokens :]
    pixels = fit_images(image, size)[0].numpy()
    return PatchLook(
        key=key,
        caption=caption_of(split, position),
        optical=true_colour(pixels, dataset.card),
        radar=radar_colour(pixels, dataset.card),
        attention=attention,
        components=shared_components(tokens),
    )


def shared_components(
    tokens: dict[SensorSet, Float32[Tensor, "token feature"]],
) -> dict[SensorSet, Float32[np.ndarray, "row column 3"]]:
    """Each token's place along the first three principal axes of all sensor sets' tokens.

    The same colour stands for the same feature under every sensor set.
    """
    joined = torch.cat(list(tokens.values()))
    mean = joined.mean(dim=0)
    _, _, axes = torch.linalg.svd(joined - mean, full_matrices=False)
    places = {sensors: (one - mean) @ axes[:3].T for sensors, one in tokens.items()}
    low, high = torch.quantile(torch.cat(list(places.values())), torch.tensor([0.02, 0.98]), dim=0)
    found = {}
    for sensors, one in places.items():
        side = round(len(one) ** 0.5)
        colours = ((one - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)
        found[sensors] = colours.reshape(side, side, -1).numpy()
    return found


def draw_attention(look: PatchLook) -> Figure:
    """The patch left; for each sensor set its attention over the patch, and its tokens' colours."""
    columns = 1 + len(look.attention)
    figure = Figure(figsize=(2.9 * columns, 6.5), layout="constrained")
    panels = figure.subplots(2, columns, squeeze=False)
    _show(panels[0, 0], look.optical, "true colour (B04, B03, B02)")
    _show(panels[1, 0], look.radar, "radar (VV, VH, VV - VH)")
    for column, (sensors, heads) in enumerate(look.attention.items(), start=1):
        backdrop = look.radar if sensors == "s1" else look.optical
        _draw_heat(panels[0, column], heads.mean(axis=0), backdrop)
        panels[0, column].set_title(f"attention, {_TITLES[sensors]}", fontsize="medium")
        _show(panels[1, column], look.components[sensors], f"tokens, {_TITLES[sensors]}")
    figure.suptitle(f"{look.key}\n{look.caption}", fontsize="small")
    return figure


def _draw_heat(
    panel: Axes,
    attention: Float32[np.ndarray, "row column"],
    backdrop: Float32[np.ndarray, "height width 3"] | None,
) -> None:
    """Attention over the grey patch: the more, the warmer and the more opaque."""
    side = 240 if backdrop is None else backdrop.shape[0]
    heat = torch.from_numpy(attention)[None, None]
    smooth = interpolate(heat, size=(side, side), mode="bilinear")[0, 0].numpy()
    low, high = np.percentile(smooth, [1, 99.5])
    shown = np.clip((smooth - low) / max(high - low, 1e-9), 0, 1)
    if backdrop is not None:
        panel.imshow(backdrop.mean(axis=-1), cmap="gray", vmin=-0.15, vmax=1.15)
    panel.imshow(shown, cmap="inferno", alpha=0.25 + 0.6 * shown)
    panel.set_axis_off()


def _show(panel: Axes, picture: Float32[np.ndarray, "height width 3"] | None, title: str) -> None:
    panel.set_axis_off()
    if picture is not None:
        panel.imshow(picture, interpolation="nearest")
        panel.set_title(title, fontsize="medium")
