"""A pretrained backbone at rest, with all that its user must know about its input."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bigearth_prep.bands import SENSORS, Sensor, select_bands
from bigearth_prep.card import BandParameters, DatasetCard, Scheme
from dinomm_train.config import ModelConfig, ViewConfig
from dinomm_train.errors import TrainError
from dinomm_train.models.backbone import Backbone, build_backbone

_NAMED_AT_MOST = 3
"""Keys or bands that an error message spells out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedInput:
    """What the network saw in training, so that nobody has to guess it."""

    channels: tuple[str, ...]
    """Band names, in the order in which they are stacked."""

    units: dict[Sensor, str]
    """Unit of the physical values behind the stored ones."""

    dtypes: dict[Sensor, str]
    """Type of the stored values; integer codes reach the network divided by their greatest."""

    scheme: Scheme
    """How stored values came from physical ones."""

    parameters: dict[str, BandParameters]
    """The scheme's parameters by band; empty for weights that came without them."""

    crop_px: int
    """Side of a global crop in training, in pixels of 10 m."""

    antialias: bool
    """Whether shrinking a crop averaged over the pixels between."""

    fill: float
    """Network input that stands for a missing sensor."""

    sensors: tuple[Sensor, ...] = ()
    """Whose each channel is; empty where an earlier version wrote this, of BigEarthNet's bands."""

    @property
    def channel_sensors(self) -> tuple[Sensor, ...]:
        """Whose each channel is."""
        return self.sensors or tuple(band.sensor for band in select_bands(self.channels))

    def to_json(self) -> str:
        """All fields, as text that `expected_input_from_json` reads."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class FrozenBackbone:
    """A network in evaluation mode, without gradients."""

    origin: str
    """Where the weights come from, in words."""

    architecture: ModelConfig
    """Builds the same network again."""

    expects: ExpectedInput
    network: Backbone


def expected_input(card: DatasetCard, views: ViewConfig) -> ExpectedInput:
    """What a network sees that is trained on such views of the dataset with this card."""
    return ExpectedInput(
        channels=card.channels,
        units={sensor: arrays.unit for sensor, arrays in card.sensors.items()},
        dtypes={sensor: arrays.dtype for sensor, arrays in card.sensors.items()},
        scheme=card.normalization.scheme,
        parameters=dict(card.normalization.parameters),
        crop_px=views.crops.global_px,
        antialias=views.crops.antialias,
        fill=views.sensor_drop.fill,
        sensors=tuple(sensor for sensor in SENSORS for _ in card.sensor_bands(sensor)),
    )


def expected_input_from_json(text: str) -> ExpectedInput:
    """The fields that `ExpectedInput.to_json` wrote.

    Raises:
        KeyError: a field is missing.
        TypeError: a field is of another kind.
        ValueError: the text is not JSON.
    """
    fields: dict[str, Any] = json.loads(text)
    parameters = {name: BandParameters(**one) for name, one in fields["parameters"].items()}
    lists = {name: tuple(fields.get(name, ())) for name in ("channels", "sensors")}
    return ExpectedInput(**(fields | {"parameters": parameters} | lists))


def require_same_input(frozen: FrozenBackbone, card: DatasetCard, dataset: str) -> None:
    """Return nothing where the dataset gives the network what it was trained on.

    Raises:
        TrainError: bands, their order, units or normalization differ; the message says how.
    """
    wants, gives = frozen.expects, card.normalization
    differences = [
        f"{name} {found} instead of {wanted}"
        for name, found, wanted in (
            ("bands", ",".join(card.channels), ",".join(wants.channels)),
            ("normalization", gives.scheme, wants.scheme),
        )
        if found != wanted
    ]
    differences += [
        f"{sensor} in {card.sensors[sensor].unit} instead of {unit}"
        for sensor, unit in wants.units.items()
        if sensor in card.sensors and card.sensors[sensor].unit != unit
    ]
    differences += [
        f"{band} normalized with {_shown(gives.parameters[band])} instead of {_shown(parameters)}"
        for band, parameters in wants.parameters.items()
        if band in gives.parameters and gives.parameters[band] != parameters
    ]
    if differences:
        raise TrainError(
            f"{dataset} does not hold what {frozen.origin} was trained on: "
            f"{_first_few(differences, '; ')}; build shards with the same --bands and "
            "--normalize as the training dataset, and with --stats naming its dataset.json"
        )


def freeze(
    architecture: ModelConfig,
    expects: ExpectedInput,
    weights: Mapping[str, Tensor],
    *,
    origin: str,
) -> FrozenBackbone:
    """The network with these weights, named as timm names them.

    Raises:
        TrainError: a weight is missing, superfluous, or of another shape.
    """
    frozen = untrained(architecture, expects, seed=0, origin=origin)
    vit = frozen.network.vit
    _require_same_weights(
        {name: one.shape for name, one in vit.state_dict().items()}, weights, origin
    )
    vit.load_state_dict(weights, strict=True)
    return frozen


def untrained(
    architecture: ModelConfig, expects: ExpectedInput, *, seed: int, origin: str
) -> FrozenBackbone:
    """The same network with fresh weights drawn from this seed."""
    architecture = dataclasses.replace(architecture, drop_path=0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_backbone(
            architecture, channels=len(expects.channels), global_px=expects.crop_px
        )
    network.eval().requires_grad_(requires_grad=False)
    return FrozenBackbone(
        origin=origin, architecture=architecture, expects=expects, network=network
    )


def _require_same_weights(
    wanted: Mapping[str, torch.Size], found: Mapping[str, Tensor], origin: str
) -> None:
    common = wanted.keys() & found.keys()
    problems = [f"{name} is missing" for name in wanted if name not in common]
    problems += [f"{name} is not part of it" for name in found if name not in common]
    problems += [
        f"{name} is {tuple(found[name].shape)}, expected {tuple(wanted[name])}"
        for name in wanted
        if name in common and found[name].shape != wanted[name]
    ]
    if problems:
        raise TrainError(
            f"{origin} does not fit the architecture ({len(common)} of {len(wanted)} weights have "
            f"a matching name): {_first_few(problems, '; ')}; check that it is the checkpoint "
            "you mean"
        )


def _first_few(items: list[str], separator: str) -> str:
    more = len(items) - _NAMED_AT_MOST
    return separator.join(items[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def _shown(parameters: BandParameters) -> str:
    return ", ".join(f"{name} {value:.9g}" for name, value in asdict(parameters).items())
