"""Backbones from wherever they lie: a run, a checkpoint, an export, or the published weights."""

import argparse
from pathlib import Path
from pickle import UnpicklingError

import torch

from dinomm_train.checkpoint import Checkpoint, read_checkpoint
from dinomm_train.errors import TrainError
from dinomm_train.export import read_export
from dinomm_train.models.frozen import FrozenBackbone, expected_input, freeze
from dinomm_train.models.published_weights import has_published_layout, read_published_weights

_BACKBONE_PREFIX = "backbone.vit."


def read_frozen_backbone(path: Path) -> FrozenBackbone:
    """The teacher's backbone of a run folder or file, in evaluation mode.

    Raises:
        TrainError: there is nothing at this path that holds such a backbone.
    """
    if path.is_dir():
        return _teacher_of(read_checkpoint(path), str(path))
    if not path.is_file():
        raise TrainError(
            f"{path} does not exist; name a run folder, a checkpoint, an export, or the "
            "published weights"
        )
    if path.suffix == ".safetensors":
        return read_export(path)
    state = _load_plain(path)
    if has_published_layout(state):
        return read_published_weights(state, origin=str(path))
    return _teacher_of(read_checkpoint(path), str(path))


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


def _teacher_of(checkpoint: Checkpoint, source: str) -> FrozenBackbone:
    weights = {
        name.removeprefix(_BACKBONE_PREFIX): one
        for name, one in checkpoint.teacher.items()
        if name.startswith(_BACKBONE_PREFIX)
    }
    expects = expected_input(checkpoint.card, checkpoint.config.views)
    origin = f"{source} (step {checkpoint.step})"
    return freeze(checkpoint.config.model, expects, weights, origin=origin)
