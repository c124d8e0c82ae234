"""Backbones from wherever they lie: runs, checkpoints, exports, published weights, timm's."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bigearth_prep.card import DatasetCard
from dinomm_train.checkpoint import Checkpoint, read_checkpoint
from dinomm_train.errors import TrainError
from dinomm_train.export import is_export, read_export
from dinomm_train.models.frozen import FrozenBackbone, expected_input, freeze
from dinomm_train.models.plain_weights import read_plain_weights
from dinomm_train.models.published_weights import has_published_layout, read_published_weights

_BACKBONE_PREFIX = "backbone.vit."

_WRAPPERS = ("state_dict", "model")
"""Keys under which other trainers keep a state dict."""


def read_frozen_backbone(path: Path, card: DatasetCard | None = None) -> FrozenBackbone:
    """The teacher's backbone of a run folder or file, in evaluation mode.

    Args:
        path: A run folder, a checkpoint, an export, the published weights, or a plain ViT's state
            dict as timm names it.
        card: Of the dataset that it will see: says what the input of a plain state dict means.

    Raises:
        TrainError: there is nothing at this path that holds such a backbone.
    """
    if path.suffix == ".safetensors" and path.is_file():
        return _read_safetensors(path, card)
    if path.is_file():
        return _read_torch_file(path, card)
    if path.is_dir():
        return _teacher_of(read_checkpoint(path), str(path))
    raise TrainError(
        f"{path} does not exist; name a run folder, a checkpoint, an export, or the published "
        "weights"
    )


def _read_torch_file(path: Path, card: DatasetCard | None) -> FrozenBackbone:
    state = _load_plain(path)
    if has_published_layout(state):
        return read_published_weights(state, origin=str(path))
    weights = _state_dict_in(state)
    if weights is not None:
        return read_plain_weights(weights, card, origin=str(path))
    return _teacher_of(read_checkpoint(path), str(path))


def _read_safetensors(path: Path, card: DatasetCard | None) -> FrozenBackbone:
    try:
        if is_export(path):
            return read_export(path)
        weights = load_file(path)
    except SafetensorError as error:
        raise TrainError(
            f"{path} is not a readable safetensors file ({error}); copy it again"
        ) from error
    return read_plain_weights(weights, card, origin=str(path))


def _load_plain(path: Path) -> dict[str, object]:
    try:
        # The released file keeps its command line's arguments beside the tensors.
        with torch.serialization.safe_globals([argparse.Namespace]):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise TrainError(f"{path} is not a readable checkpoint: {error}") from error
    if not isinstance(state, dict):
        raise TrainError(f"{path} holds a {type(state).__name__}, not a checkpoint")
    return state


def _state_dict_in(state: Mapping[str, object]) -> dict[str, Tensor] | None:
    """The file's tensors by name, where it holds nothing else, or holds them under a usual key."""
    if "format" in state:
        return None
    inner = next((state[key] for key in _WRAPPERS if isinstance(state.get(key), dict)), state)
    assert isinstance(inner, Mapping)
    tensors = {name: one for name, one in inner.items() if isinstance(one, Tensor)}
    return tensors if tensors and len(tensors) == len(inner) else None


def _teacher_of(checkpoint: Checkpoint, source: str) -> FrozenBackbone:
    weights = {
        name.removeprefix(_BACKBONE_PREFIX): one
        for name, one in checkpoint.teacher.items()
        if name.startswith(_BACKBONE_PREFIX)
    }
    expects = expected_input(checkpoint.card, checkpoint.config.views)
    origin = f"{source} (step {checkpoint.step})"
    return freeze(checkpoint.config.model, expects, weights, origin=origin)
