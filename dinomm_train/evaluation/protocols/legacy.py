"""The linear probe as it was published, to stand beside published numbers and for nothing else.

As DINO-MM's code runs it (arXiv:2204.05381): the network is run anew on random crops in each epoch,
labels of a share below one are drawn with replacement, the score is the mean of micro-APs of small
batches of the *validation* list in stored order, and the best epoch on that list is reported.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torch.nn.functional import interpolate, multilabel_soft_margin_loss

from dinomm_train.config import CropConfig
from dinomm_train.data.crops import CROP_DRAWS, cut_crops, draw_boxes
from dinomm_train.data.draws import Purpose, ViewKey, view_uniforms
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.order import epoch_order
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.evaluation.config import SensorSet
from dinomm_train.evaluation.encoders import CLS_LAYERS
from dinomm_train.evaluation.images import blank_missing, in_batches, read_images
from dinomm_train.evaluation.protocol_config import LegacyConfig
from dinomm_train.models.frozen import FrozenBackbone
from dinomm_train.models.layers import last_tokens
from dinomm_train.transfer import to_device


@dataclass(frozen=True, kw_only=True, slots=True)
class LegacyTask:
    """Which network learns what, seen how."""

    frozen: FrozenBackbone
    dataset: StoredDataset
    train: StoredSplit
    validation: StoredSplit
    fraction: float
    sensors: SensorSet
    seed: int
    """Of orders and crops."""
    device: torch.device


@dataclass(frozen=True, kw_only=True, slots=True)
class LegacyScore:
    """The published figure, and what the same predictions score over the whole list."""

    batch_micro_ap: float
    """Mean of the batches' micro-APs, weighted by their samples; of the best epoch."""

    epoch: int
    """From 1; the best of all by that figure."""

    probabilities: Float32[np.ndarray, "sample class"]
    """Of the validation samples in that epoch."""


def run_legacy(
    task: LegacyTask, config: LegacyConfig, advance: Callable[[int], None] = lambda _: None
) -> LegacyScore:
    """The best epoch's score on the validation list.

    Args:
        task: What to learn.
        config: How.
        advance: Told the number of samples that went through the network.
    """
    positions = draw_with_replacement(len(task.train), task.fraction, config.subset_seed)
    layer = _new_layer(task)
    optimizer = torch.optim.SGD(
        layer.parameters(), lr=config.learning_rate, momentum=config.momentum
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs)
    scored = _scored_features(task, config, advance)
    labels = task.validation.labels
    best = LegacyScore(
        batch_micro_ap=-1.0, epoch=0, probabilities=np.zeros(labels.shape, dtype=np.float32)
    )
    for epoch in range(config.epochs):
        for features, wanted in _training_features(task, config, positions, epoch):
            loss = multilabel_soft_margin_loss(layer(features), wanted.float())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            advance(len(wanted))
        schedule.step()
        with torch.no_grad():
            found = torch.sigmoid(layer(scored)).cpu().numpy()
        score = mean_batch_micro_ap(labels, found, config.score_batch)
        if score > best.batch_micro_ap:
            best = LegacyScore(batch_micro_ap=score, epoch=epoch + 1, probabilities=found)
    return best


def draw_with_replacement(samples: int, fraction: float, seed: int) -> Int64[np.ndarray, " draw"]:
    """Positions of the labels used: all of them once, or a share drawn with replacement."""
    if fraction == 1.0:
        return np.arange(samples)
    return np.random.default_rng(seed).choice(samples, size=max(1, int(fraction * samples)))


def mean_batch_micro_ap(
    labels: UInt8[np.ndarray, "sample class"],
    probabilities: Float[np.ndarray, "sample class"],
    batch: int,
) -> float:
    """Micro-AP of each batch of samples in the order given, averaged by their number of samples."""
    starts = range(0, len(labels), batch)
    scores = [
        average_precision_score(
            labels[at : at + batch].ravel(), probabilities[at : at + batch].ravel()
        )
        for at in starts
    ]
    return float(np.average(scores, weights=[len(labels[at : at + batch]) for at in starts]))


def _new_layer(task: LegacyTask) -> nn.Linear:
    vit = task.frozen.network.vit
    columns = min(CLS_LAYERS, len(vit.blocks)) * task.frozen.network.width
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        layer = nn.Linear(columns, task.train.labels.shape[1])
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
    return layer.to(task.device)


def _features(task: LegacyTask, images: Tensor) -> Float[Tensor, "sample feature"]:
    seen = blank_missing(images, task.frozen.expects, task.sensors)
    network = task.frozen.network.to(task.device)
    with torch.no_grad():
        layers = last_tokens(network, seen, blocks=CLS_LAYERS)
    return torch.cat([tokens[:, 0] for tokens in layers], dim=1)


def _scored_features(
    task: LegacyTask, config: LegacyConfig, advance: Callable[[int], None]
) -> Float[Tensor, "sample feature"]:
    """Of the validation list's centre crops; they are the same in every epoch."""
    positions = np.arange(len(task.validation))
    batches = in_batches(positions, config.score_batch)
    rows = []
    token_px = task.frozen.network.patch_px
    side = max(1, config.centre_px // token_px) * token_px
    start = (config.resized_px - side) // 2
    for images in read_images(task.dataset, task.validation, batches, task.device):
        resized = interpolate(images, size=(config.resized_px,) * 2, mode="bicubic")
        rows.append(_features(task, resized[:, :, start : start + side, start : start + side]))
        advance(len(images))
    return torch.cat(rows)


def _training_features(
    task: LegacyTask, config: LegacyConfig, positions: Int64[np.ndarray, " draw"], epoch: int
) -> Iterator[tuple[Float[Tensor, "batch feature"], UInt8[Tensor, "batch class"]]]:
    order = positions[epoch_order(len(positions), task.seed, epoch)]
    batches = in_batches(order, config.batch_size)
    images_of = read_images(task.dataset, task.train, batches, task.device)
    crop = CropConfig(horizontal_flip=0.5, vertical_flip=0.0, quarter_turns=0.0)
    token_px = task.frozen.network.patch_px
    side = max(1, config.resized_px // token_px) * token_px
    for chosen, images in zip(batches, images_of, strict=True):
        key = ViewKey(seed=task.seed, epoch=epoch, sample_ids=task.train.sample_ids[chosen])
        uniforms = view_uniforms(key, Purpose.CROP, views=range(1), draws=CROP_DRAWS)[0]
        boxes = draw_boxes(uniforms, crop, config.crop_scale, images.shape[-1])
        crops = cut_crops(images, boxes, crop_px=side, antialias=False)
        yield _features(task, crops), to_device(task.train.labels[chosen], task.device)
