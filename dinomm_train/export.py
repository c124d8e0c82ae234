"""Backbones as safetensors files that plain timm loads and that say what their input is."""

import dataclasses
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from bigearth_prep.whole_file import whole_file
from dinomm_train.config import ModelConfig
from dinomm_train.errors import TrainError
from dinomm_train.models.backbone import resample_table_as_published, timm_arguments
from dinomm_train.models.frozen import (
    FrozenBackbone,
    expected_input_from_json,
    freeze,
)

FORMAT = "dinomm-backbone-1"
_TABLE = "pos_embed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """What was written beside the weights."""

    name: str
    """The model's name in timm."""

    arguments: dict[str, Any]
    """Of `timm.create_model`, after the name."""

    metadata: dict[str, str]
    """All of the file's metadata."""


def write_export(frozen: FrozenBackbone, path: Path) -> Export:
    """What was written: weights under timm's names, architecture and input in the metadata.

    A network that resamples its position table as published gets the table of its training crop:
    at that size plain timm gives the same features, at others it does so only nearly.
    """
    weights: dict[str, Tensor] = frozen.network.vit.state_dict()
    architecture = frozen.architecture
    expects = frozen.expects
    if architecture.table_resampling == "published":
        side = expects.crop_px // frozen.network.patch_px
        weights[_TABLE] = resample_table_as_published(weights[_TABLE], (side, side))
        architecture = dataclasses.replace(
            architecture, table_px=expects.crop_px, table_resampling="timm"
        )
    arguments = timm_arguments(
        architecture, channels=len(expects.channels), global_px=expects.crop_px
    )
    metadata = {
        "format": "pt",
        "dinomm_format": FORMAT,
        "origin": frozen.origin,
        "timm_name": architecture.name,
        "timm_arguments": json.dumps(arguments),
        "architecture": json.dumps(asdict(architecture)),
        "input": expects.to_json(),
    }
    content = save({name: one.contiguous() for name, one in weights.items()}, metadata)
    with whole_file(path) as partial:
        # Written here: safetensors' own writer makes files that other users cannot read.
        partial.write_bytes(content)
    return Export(name=architecture.name, arguments=arguments, metadata=metadata)


def read_export(path: Path) -> FrozenBackbone:
    """The network in a file that `write_export` made.

    Raises:
        TrainError: it is no such file.
    """
    try:
        metadata = _read_metadata(path)
        architecture = ModelConfig(**json.loads(metadata["architecture"]))
        expects = expected_input_from_json(metadata["input"])
        weights = load_file(path)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainError(
            f"{path} is not a backbone as dinomm-train export writes it ({error!r}); "
            "export it again from its run"
        ) from error
    return freeze(architecture, expects, weights, origin=str(path))


def is_export(path: Path) -> bool:
    """Whether a safetensors file says that `write_export` made it."""
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
    return "dinomm_format" in metadata


def _read_metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
    if metadata.get("dinomm_format") != FORMAT:
        raise ValueError(f"its metadata does not say {FORMAT}")
    return metadata
