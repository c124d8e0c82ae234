"""The whole network learns from labels, from pretrained weights or from fresh ones."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from sklearn.metrics import average_precision_score
from timm.optim._param_groups import param_groups_layer_decay
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from dinomm_train.config import CropConfig
from dinomm_train.data.crops import CROP_DRAWS, cut_crops, draw_boxes
from dinomm_train.data.draws import Purpose, ViewKey, view_uniforms
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.order import epoch_order
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.evaluation.config import SensorSet
from dinomm_train.evaluation.images import (
    InputSize,
    blank_missing,
    fit_images,
    in_batches,
    read_images,
)
from dinomm_train.evaluation.protocol_config import FinetuneConfig
from dinomm_train.learner import choose_half_precision
from dinomm_train.models.backbone import Backbone
from dinomm_train.models.frozen import FrozenBackbone
from dinomm_train.transfer import to_device, to_host

SCORED_AT_ONCE = 64
"""Patches of a split whose probabilities are computed together."""

_LEAST_SCORES = 5
"""Epochs that validation chooses among, where there are as many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneTask:
    """What learns from which labelled patches, seen how."""

    frozen: FrozenBackbone
    """Where the weights start."""

    size: InputSize
    """Of whole patches when they are scored; training crops are brought to the same input side."""

    dataset: StoredDataset
    train: StoredSplit
    positions: Int64[np.ndarray, " labelled"]
    """Of the labelled samples in the train split."""

    validation: StoredSplit
    validation_positions: Int64[np.ndarray, " chosen"]
    sensors: SensorSet
    """What the network sees in training and on validation samples."""

    seed: int
    device: torch.device


@dataclass(frozen=True, kw_only=True, slots=True)
class Finetuned:
    """The network that validation chose."""

    model: nn.Module
    learning_rate: float
    epoch: int
    """From 1; of the weights that were kept."""

    validation_micro_ap: float


def finetune(
    task: FinetuneTask, config: FinetuneConfig, advance: Callable[[int], None] = lambda _: None
) -> Finetuned:
    """The best of all learning rates and epochs on the validation samples.

    Args:
        task: What to learn.
        config: How.
        advance: Told the number of training samples after each step.
    """
    tried = [_train(task, config, lr, advance) for lr in config.learning_rates]
    return max(tried, key=lambda one: one.validation_micro_ap)


def predict_split(
    model: nn.Module,
    task: FinetuneTask,
    split: StoredSplit,
    positions: Int64[np.ndarray, " sample"],
    sensors: SensorSet,
) -> Float32[np.ndarray, "sample class"]:
    """Class probabilities of whole patches under a sensor set."""
    batches = in_batches(positions, SCORED_AT_ONCE)
    rows = []
    model.eval()
    with torch.no_grad(), _arithmetic(task.device):
        for images in read_images(task.dataset, split, batches, task.device):
            fitted = blank_missing(fit_images(images, task.size), task.frozen.expects, sensors)
            rows.append(to_host(torch.sigmoid(model(fitted).float())))
    return torch.cat([wait() for wait in rows]).numpy()


def _train(
    task: FinetuneTask, config: FinetuneConfig, lr: float, advance: Callable[[int], None]
) -> Finetuned:
    model = _build_model(task)
    optimizer = _build_optimizer(model, config, lr)
    steps = config.epochs * math.ceil(len(task.positions) / config.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_then_cosine(steps, config))
    best, kept = Finetuned(model=model, learning_rate=lr, epoch=0, validation_micro_ap=-1.0), {}
    for epoch in range(config.epochs):
        model.train()
        for crops, labels in _training_batches(task, config, epoch):
            with _arithmetic(task.device):
                logits = model(crops)
            loss = binary_cross_entropy_with_logits(logits.float(), labels.float())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            advance(len(labels))
        # Counted back from the last epoch, which is always scored.
        if (config.epochs - 1 - epoch) % _epochs_per_score(task, config.epochs):
            continue
        score = _validation_score(model, task)
        if score > best.validation_micro_ap:
            best = Finetuned(
                model=model, learning_rate=lr, epoch=epoch + 1, validation_micro_ap=score
            )
            kept = copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return best


def _build_model(task: FinetuneTask) -> nn.Module:
    backbone = copy.deepcopy(task.frozen.network).requires_grad_(requires_grad=True)
    classes = task.train.labels.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        layer = nn.Linear(backbone.width, classes)
        nn.init.trunc_normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(backbone, layer).to(task.device)


def _build_optimizer(model: nn.Module, config: FinetuneConfig, lr: float) -> torch.optim.Optimizer:
    backbone, layer = model.children()
    assert isinstance(backbone, Backbone)
    groups = param_groups_layer_decay(
        backbone.vit,
        weight_decay=config.weight_decay,
        no_weight_decay_list=tuple(backbone.vit.no_weight_decay()),
        layer_decay=config.layer_decay,
    )
    for group in groups:
        group["lr"] = lr * group.pop("lr_scale")
    groups.append({"params": list(layer.parameters()), "lr": lr, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=lr, weight_decay=0.0)


def _warm_then_cosine(steps: int, config: FinetuneConfig) -> Callable[[int], float]:
    warm = max(1, round(config.warmup_share * steps))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return factor


def _training_batches(
    task: FinetuneTask, config: FinetuneConfig, epoch: int
) -> Iterator[tuple[Float32[Tensor, "batch channel side side"], UInt8[Tensor, "batch class"]]]:
    order = task.positions[epoch_order(len(task.positions), task.seed, epoch)]
    batches = in_batches(order, config.batch_size)
    images_of = read_images(task.dataset, task.train, batches, task.device)
    crop = CropConfig(horizontal_flip=0.5, vertical_flip=0.5, quarter_turns=0.5)
    for positions, images in zip(batches, images_of, strict=True):
        key = ViewKey(seed=task.seed, epoch=epoch, sample_ids=task.train.sample_ids[positions])
        uniforms = view_uniforms(key, Purpose.CROP, views=range(1), draws=CROP_DRAWS)[0]
        boxes = draw_boxes(uniforms, crop, config.crop_scale, images.shape[-1])
        crops = cut_crops(images, boxes, crop_px=task.size.input_px, antialias=task.size.antialias)
        labels = to_device(task.train.labels[positions], task.device)
        yield blank_missing(crops, task.frozen.expects, task.sensors), labels


def _epochs_per_score(task: FinetuneTask, epochs: int) -> int:
    """So many that no more patches are scored than learnt from, but few enough for a choice."""
    for_balance = math.ceil(len(task.validation_positions) / len(task.positions))
    return min(for_balance, max(1, epochs // _LEAST_SCORES))


def _validation_score(model: nn.Module, task: FinetuneTask) -> float:
    positions = task.validation_positions
    found = predict_split(model, task, task.validation, positions, task.sensors)
    if not np.isfinite(found).all():
        return 0.0
    return float(average_precision_score(task.validation.labels[positions].ravel(), found.ravel()))


def _arithmetic(device: torch.device) -> torch.autocast:
    """bf16 on a GPU that has it, as it is elsewhere."""
    enabled = choose_half_precision("auto", device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
