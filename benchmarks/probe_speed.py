"""How much one pass over the patches saves: a linear probe on cached features, and as published.

As published (arXiv:2204.05381), every epoch runs the backbone again, on random crops of each
labelled patch and on each validation patch, and one learning rate is trained at a time. Here each
patch passes the backbone once per sensor set, and all learning rates and choices of layers are
trained together on what is on disk. Both are measured on the same ViT-S/8 in CPU-seconds, the
backbone on a few patches, as each is the same work; the totals are for 1 % of 100,000 labelled
samples, 20,000 that choose, three sensor sets and 100 epochs. Exits 1 below the bar.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import multilabel_soft_margin_loss

from dinomm_train.config import ModelConfig
from dinomm_train.evaluation.encoders import CLS_LAYERS, Columns
from dinomm_train.evaluation.label_subsets import draw_subset
from dinomm_train.evaluation.protocol_config import LinearConfig
from dinomm_train.evaluation.protocols.linear_probe import choose_probe, fit_linear_probes
from dinomm_train.models.backbone import Backbone, build_backbone
from dinomm_train.models.layers import last_tokens

BAR = 20.0
"""Least ratio of CPU-seconds."""

SAMPLES, FRACTION, EPOCHS, SENSOR_SETS, CLASSES = 100_000, 0.01, 100, 3, 19
WIDTH, CHANNELS, PATCH_PX, CROP_PX, SCORED_PX = 384, 14, 120, 128, 112
BATCH = 8

VALIDATION = 20_000
"""Samples that choose."""


def main() -> int:
    """Print both costs and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    backbone = build_backbone(ModelConfig(drop_path=0.0), channels=CHANNELS, global_px=SCORED_PX)
    backbone.eval().requires_grad_(requires_grad=False)
    trained, extracted, scored = [], [], []
    for _ in range(rounds):
        trained.append(_cpu_s(lambda: _published_step(backbone)) / BATCH)
        extracted.append(_cpu_s(lambda: _encode(backbone, torch.rand(BATCH, CHANNELS, 120, 120))))
        scored.append(_cpu_s(lambda: _encode(backbone, torch.rand(BATCH, CHANNELS, 112, 112))))
    per_step = statistics.median(trained)
    per_patch, per_scored = (statistics.median(one) / BATCH for one in (extracted, scored))
    with tempfile.TemporaryDirectory() as folder:
        probe_s, wall_s = _probe_on_disk(Path(folder))
    labelled = round(SAMPLES * FRACTION)
    published_s = SENSOR_SETS * EPOCHS * (labelled * per_step + VALIDATION * per_scored)
    extraction_s = SENSOR_SETS * (labelled + VALIDATION) * per_patch
    fits_s = SENSOR_SETS * probe_s
    counted, cached = published_s / (extraction_s + fits_s), published_s / fits_s
    print(
        f"published: {1000 * per_step:.0f} ms of CPU per labelled patch and "
        f"{1000 * per_scored:.0f} ms per validation patch, {EPOCHS} times; {published_s:,.0f} CPU-s"
    )
    print(
        f"here: {1000 * per_patch:.0f} ms per patch once, {extraction_s:,.0f} CPU-s, then "
        f"{fits_s:.0f} CPU-s ({SENSOR_SETS * wall_s:.0f} s on one core) for "
        f"{len(LinearConfig().learning_rates)} learning rates x 4 choices of layers"
    )
    print(f"ratio with the extraction counted: {counted:.0f}x (at least {BAR:.0f}x)")
    print(f"ratio on features that are on disk: {cached:,.0f}x")
    return 0 if counted >= BAR else 1


def _cpu_s(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _encode(backbone: Backbone, images: Tensor) -> Tensor:
    with torch.no_grad():
        layers = last_tokens(backbone, images, blocks=CLS_LAYERS)
    return torch.cat([tokens[:, 0] for tokens in layers], dim=1)


def _published_step(backbone: Backbone) -> None:
    """One batch of one epoch: random crops at 128 px, the backbone, one layer's SGD."""
    layer = torch.nn.Linear(CLS_LAYERS * WIDTH, CLASSES)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01, momentum=0.9)
    images = torch.rand(BATCH, CHANNELS, PATCH_PX, PATCH_PX)
    crops = torch.nn.functional.interpolate(images, size=(CROP_PX,) * 2, mode="bicubic")
    labels = torch.randint(0, 2, (BATCH, CLASSES)).float()
    loss = multilabel_soft_margin_loss(layer(_encode(backbone, crops)), labels)
    loss.backward()
    optimizer.step()


def _probe_on_disk(folder: Path) -> tuple[float, float]:
    """CPU and wall seconds of one sensor set: draw 1 %, read, fit, choose on validation."""
    rng = np.random.default_rng(0)
    columns = (CLS_LAYERS + 1) * WIDTH
    labels = (rng.random((SAMPLES, CLASSES)) < 0.15).astype(np.uint8)
    for name, count in (("train", SAMPLES), ("validation", VALIDATION)):
        np.save(folder / f"{name}.npy", rng.standard_normal((count, columns), dtype=np.float32))
    dims = {"last CLS": (3, 4), "last CLS + mean": (3, 5), "4 CLS": (0, 4), "4 CLS + mean": (0, 5)}
    choices = [
        Columns(name=name, start=first * WIDTH, stop=last * WIDTH)
        for name, (first, last) in dims.items()
    ]
    cpu, wall = time.process_time(), time.perf_counter()
    drawn = draw_subset(labels, fraction=FRACTION, seed=0)
    features = torch.from_numpy(np.load(folder / "train.npy", mmap_mode="r")[drawn])
    probes = fit_linear_probes(
        features, torch.from_numpy(labels[drawn]), choices, LinearConfig(), seed=0
    )
    held = torch.from_numpy(np.load(folder / "validation.npy"))
    choose_probe(probes, held, torch.from_numpy(labels[:VALIDATION]))
    return time.process_time() - cpu, time.perf_counter() - wall


if __name__ == "__main__":
    sys.exit(main())
