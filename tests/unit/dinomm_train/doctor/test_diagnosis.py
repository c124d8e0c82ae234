"""What limits a run, of one rank and of several on a machine."""

from dataclasses import replace

import pytest

from dinomm_train.doctor.diagnosis import Diagnosis, Rates

RATES = Rates(disk=50.0, reader=500.0, views=300.0, step=150.0, peak_tflops=8.0, step_tflops=2.0)


@pytest.mark.parametrize(
    ("change", "fits", "limit"),
    [
        ({}, False, "disk"),
        ({}, True, "step"),
        ({"reader": 60.0}, True, "reader"),
        ({"views": 100.0, "step": 900.0}, True, "views"),
        # 300 and 150 one after the other are 100.
        ({"disk": 99.0}, False, "disk"),
        ({"disk": 101.0}, False, "step"),
    ],
)
def test_the_slowest_part_is_the_limit(change: dict[str, float], fits: bool, limit: str) -> None:  # noqa: FBT001
    found = Diagnosis(checks=(), rates=replace(RATES, **change), fits_in_memory=fits)
    assert found.limit == limit


@pytest.mark.parametrize(("ranks", "limit", "run_rate"), [(1, "step", 2400.0), (4, "disk", 3000.0)])
def test_ranks_share_the_disk_and_not_their_gpus(ranks: int, limit: str, run_rate: float) -> None:
    machine = replace(RATES, disk=3000.0, reader=90_000.0, views=1e12, step=2400.0)
    rates = machine.shared_by(ranks, has_own_device=True)
    found = Diagnosis(checks=(), rates=rates, ranks=ranks)
    assert found.limit == limit
    assert found.run_rate == pytest.approx(run_rate)
    told = found.to_dict()
    assert (told["ranks"], told["run_rate"]) == (ranks, found.run_rate)


def test_ranks_on_processors_share_these_too() -> None:
    machine = replace(RATES, disk=120.0)
    found = Diagnosis(checks=(), rates=machine.shared_by(4, has_own_device=False), ranks=4)
    assert found.limit == "step"
    assert found.run_rate == pytest.approx(100.0)
    crowded = replace(machine, reader=90.0).shared_by(4, has_own_device=False)
    assert Diagnosis(checks=(), rates=crowded, fits_in_memory=True).limit == "reader"
    assert crowded.mfu == machine.mfu


def test_ranks_of_other_nodes_add_to_the_run_alone() -> None:
    rates = RATES.shared_by(2, has_own_device=True)
    assert rates.disk == 25.0
    assert Diagnosis(checks=(), rates=rates, ranks=6).run_rate == pytest.approx(150.0)
