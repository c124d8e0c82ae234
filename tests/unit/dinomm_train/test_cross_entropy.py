"""The chunked cross-entropy against a plain double loop, in value, gradients and memory."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dinomm_train import cross_entropy
from dinomm_train.cross_entropy import Targets, paired_cross_entropy

CROPS, TARGETS, PROTOTYPES, BOTTLENECK = 5, 3, 37, 4
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.04


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight prototypes at a time, the last five alone."""
    monkeypatch.setattr(cross_entropy, "_LEAST_CHUNK", 8)
    monkeypatch.setattr(cross_entropy, "_WORKING_BYTES", {"cpu": 1})


class Case:
    """Random crops, targets and weights of pairs."""

    def __init__(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        unit = torch.nn.functional.normalize
        self.directions = unit(draw(CROPS, BOTTLENECK)).to(dtype).requires_grad_()
        self.prototypes = draw(PROTOTYPES, BOTTLENECK).to(dtype).requires_grad_()
        self.targets = Targets(
            directions=unit(draw(TARGETS, BOTTLENECK)).to(dtype),
            prototypes=unit(draw(PROTOTYPES, BOTTLENECK)).to(dtype),
            centre=0.1 * draw(PROTOTYPES).to(dtype),
            temperature=TEACHER_TEMPERATURE,
        )
        self.pair_weights = draw(CROPS, TARGETS).abs().to(dtype)
        self.pair_weights[0] = 0

    def loss(self) -> Tensor:
        return paired_cross_entropy(
            self.directions,
            self.prototypes,
            STUDENT_TEMPERATURE,
            self.targets,
            self.pair_weights,
        )

    def gradients(self, loss: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(3 * loss, (self.directions, self.prototypes))

    def by_the_equation(self) -> Tensor:
        """-sum_k q_k log p_k of each pair on its own, in float64."""
        total = torch.zeros((), dtype=torch.float64)
        targets, prototypes = self.targets, self.prototypes.double()
        for i, direction in enumerate(self.directions.double()):
            p = torch.softmax(prototypes @ direction / STUDENT_TEMPERATURE, dim=0)
            for j, target in enumerate(targets.directions.double()):
                logits = targets.prototypes.double() @ target - targets.centre.double()
                q = torch.softmax(logits / TEACHER_TEMPERATURE, dim=0)
                total = total - self.pair_weights[i, j].double() * (q * p.log()).sum()
        return total


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)], ids=str
)
def test_value_and_gradients_are_those_of_the_double_loop(
    dtype: torch.dtype, tolerance: float
) -> None:
    case = Case(dtype)
    found, expected = case.loss(), case.by_the_equation()
    assert found.dtype == dtype
    assert found.item() == pytest.approx(expected.item(), rel=tolerance)
    for mine, other in zip(case.gradients(found), case.gradients(expected), strict=True):
        assert mine.dtype == dtype
        assert float((mine - other).norm() / other.norm()) < tolerance


def test_chunks_do_not_change_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case()
    chunked = case.loss()
    monkeypatch.setattr(cross_entropy, "_LEAST_CHUNK", 1000)
    assert case.loss().item() == pytest.approx(chunked.item(), rel=1e-12)


def test_under_autocast_matrix_products_alone_are_narrow() -> None:
    case = Case(torch.float32)
    exact = case.loss()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = case.loss()
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=0.01)
    assert found.item() != exact.item()
    for mine, other in zip(case.gradients(found), case.gradients(exact), strict=True):
        assert mine.dtype == torch.float32
        assert float((mine - other).norm() / other.norm()) < 0.02


def test_logits_far_beyond_exp_s_range_stay_finite() -> None:
    case = Case(torch.float32)
    with torch.no_grad():
        case.prototypes.mul_(1e4)
    assert case.loss().isfinite()
    assert all(gradient.isfinite().all() for gradient in case.gradients(case.loss()))


class WatchSizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the most numbers that any tensor has whose rows are not bottleneck vectors."""

    most = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        del types
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.shape[-1:] != (BOTTLENECK,):
            self.most = max(self.most, result.numel())
        return result


def test_no_tensor_with_a_number_per_crop_and_prototype_is_ever_made() -> None:
    case = Case()
    with WatchSizes() as watch:  # type: ignore[no-untyped-call]
        case.gradients(case.loss())
    assert watch.most == 8 * CROPS


def test_what_is_kept_for_the_gradient_has_a_number_per_crop_not_per_prototype() -> None:
    case = Case()
    kept: list[int] = []

    def keep(saved: Tensor) -> Tensor:
        kept.append(saved.numel())
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        case.loss()
    assert 0 < sum(kept) < CROPS * PROTOTYPES
