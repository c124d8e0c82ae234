"""The published training step (arXiv:2204.05381, on arXiv:2104.14294), written plainly.

Speed and results of our step are compared with this one. It shares nothing with our modules but
the names of weights, so that one state loads into both: a transformer with attention written out,
one pass per crop size, all logits stored, a loop over pairs of crops, clipping tensor by tensor on
the host's word, and an average of one tensor after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, linear, log_softmax, normalize, softmax


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainShape:
    """Sizes of the networks; the defaults are the published ones."""

    channels: int = 14
    patch_px: int = 8
    width: int = 384
    heads: int = 6
    depth: int = 12
    table_side: int = 28
    """Tokens along one side of the position table."""
    drop_path: float = 0.1
    hidden: int = 2048
    bottleneck: int = 256
    prototypes: int = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainValues:
    """What the schedules say of one step."""

    lr: float
    weight_decay: float
    teacher_momentum: float
    teacher_temperature: float = 0.04
    last_layer_frozen: bool = False


class PlainBlock(nn.Module):
    """Attention and perceptron, each a residual branch after a norm."""

    def __init__(self, width: int, heads: int, rate: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, rate
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attn = nn.ModuleDict(
            {"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)}
        )
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        )

    def forward(self, tokens: Tensor, uniforms: Tensor) -> Tensor:
        """The tokens after both branches; `uniforms` [branch, crop] decide who skips them."""
        tokens = tokens + self._attend(self.norm1(tokens)) * self._kept(uniforms[0])
        hidden = gelu(self.mlp["fc1"](self.norm2(tokens)))
        branch: Tensor = self.mlp["fc2"](hidden)
        return tokens + branch * self._kept(uniforms[1])

    def _attend(self, tokens: Tensor) -> Tensor:
        crops, count, width = tokens.shape
        qkv = self.attn["qkv"](tokens).reshape(crops, count, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(dim=-1)
        mixed: Tensor = self.attn["proj"]((weights @ v).transpose(1, 2).reshape(tokens.shape))
        return mixed

    def _kept(self, uniforms: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return torch.ones((), device=uniforms.device)
        keep = 1 - self.rate
        return (uniforms >= self.rate).float()[:, None, None] / keep


class PlainEncoder(nn.Module):
    """Transformer and projection head."""

    def __init__(self, shape: PlainShape) -> None:
        super().__init__()
        self.shape = shape
        width, side = shape.width, shape.table_side
        self.patch = nn.Conv2d(shape.channels, width, shape.patch_px, shape.patch_px)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, side**2 + 1, width))
        rates = torch.linspace(0, shape.drop_path, shape.depth).tolist()
        self.blocks = nn.ModuleList(PlainBlock(width, shape.heads, rate) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.perceptron = nn.Sequential(
            nn.Linear(width, shape.hidden),
            nn.GELU(),
            nn.Linear(shape.hidden, shape.hidden),
            nn.GELU(),
            nn.Linear(shape.hidden, shape.bottleneck),
        )
        self.last = nn.Parameter(torch.randn(shape.prototypes, shape.bottleneck))

    def load_ours(self, state: dict[str, Tensor]) -> None:
        """Take over the weights of an encoder of ours."""
        names = {
            "backbone.vit.patch_embed.proj": "patch",
            "backbone.vit.": "",
            "head.perceptron": "perceptron",
            "head.prototypes.directions": "last",
        }
        renamed = {}
        for name, weights in state.items():
            ours = next(one for one in names if name.startswith(one))
            renamed[names[ours] + name.removeprefix(ours)] = weights
        self.load_state_dict(renamed)

    def forward(self, crops_by_size: Sequence[Tensor], uniforms: Tensor | None = None) -> Tensor:
        """All logits, one size after the other; `uniforms` [branch, crop] fix stochastic depth."""
        counts = [len(crops) for crops in crops_by_size]
        device = self.last.device
        if uniforms is None:
            uniforms = torch.rand(2 * self.shape.depth, sum(counts), device=device)
        parts = torch.split(uniforms.to(device), counts, dim=1)
        features = [
            self._features(crops, part) for crops, part in zip(crops_by_size, parts, strict=True)
        ]
        directions = normalize(self.perceptron(torch.cat(features)), dim=-1)
        return linear(directions, normalize(self.last, dim=-1))

    def _features(self, crops: Tensor, uniforms: Tensor) -> Tensor:
        patches = self.patch(crops)
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat((self.cls_token.expand(len(crops), -1, -1), tokens), dim=1)
        tokens = tokens + self._positions(patches.shape[-1])
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, uniforms[2 * index : 2 * index + 2])
        features: Tensor = self.norm(tokens)[:, 0]
        return features

    def _positions(self, side: int) -> Tensor:
        stored = self.shape.table_side
        if side == stored:
            return self.pos_embed
        table = self.pos_embed[:, 1:].reshape(1, stored, stored, -1).permute(0, 3, 1, 2)
        scale = (side + 0.1) / stored
        resized = interpolate(table, scale_factor=(scale, scale), mode="bicubic")
        return torch.cat((self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2)), dim=1)


class PlainStep:
    """Both networks, the centre, and AdamW."""

    def __init__(self, shape: PlainShape, device: torch.device | None = None) -> None:
        self.student, self.teacher = (PlainEncoder(shape).to(device) for _ in range(2))
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.eval().requires_grad_(requires_grad=False)
        self.centre = torch.zeros(shape.prototypes, device=device)
        named = list(self.student.named_parameters())
        groups: list[dict[str, Any]] = [
            {"params": [one for _, one in named if one.ndim > 1]},
            {"params": [one for _, one in named if one.ndim == 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups)

    def load_ours(self, student: dict[str, Tensor]) -> None:
        """Start both networks from the weights of an encoder of ours."""
        for network in (self.student, self.teacher):
            network.load_ours(student)

    def step(
        self,
        crops_by_size: Sequence[Tensor],
        values: PlainValues,
        uniforms: Tensor | None = None,
        teacher_crops: Tensor | None = None,
    ) -> float:
        """The loss; everything has moved. The teacher sees the crops of the first size."""
        for group, decay in zip(
            self.optimizer.param_groups, (values.weight_decay, 0.0), strict=True
        ):
            group["lr"], group["weight_decay"] = values.lr, decay
        with torch.no_grad():
            seen = crops_by_size[0] if teacher_crops is None else teacher_crops
            teacher_logits = self.teacher((seen,))
        loss = self._loss(self.student(crops_by_size, uniforms), teacher_logits, values)
        self.centre = 0.9 * self.centre + 0.1 * teacher_logits.mean(dim=0)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._clip()
        if values.last_layer_frozen:
            self.student.last.grad = None
        self.optimizer.step()
        self._average(values.teacher_momentum)
        return loss.item()

    def _loss(self, student: Tensor, teacher: Tensor, values: PlainValues) -> Tensor:
        batch = len(teacher) // 2
        predictions = torch.split(student / 0.1, batch)
        assignments = softmax((teacher - self.centre) / values.teacher_temperature, dim=-1)
        targets = torch.split(assignments, batch)
        total, terms = torch.zeros((), device=student.device), 0
        for t, target in enumerate(targets):
            for v, prediction in enumerate(predictions):
                if v != t:
                    pair = -(target * log_softmax(prediction, dim=-1)).sum(dim=-1)
                    total, terms = total + pair.mean(), terms + 1
        return total / terms

    def _clip(self) -> None:
        for weights in self.student.parameters():
            if weights.grad is not None:
                factor = 3.0 / (weights.grad.norm(2).item() + 1e-6)
                if factor < 1:
                    weights.grad.mul_(factor)

    @torch.no_grad()
    def _average(self, momentum: float) -> None:
        pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
        for mine, leading in pairs:
            mine.mul_(momentum).add_((1 - momentum) * leading)
