"""A diagnosis as a reader sees it."""

import io

from rich.console import Console

from dinomm_train.doctor.checks import Check
from dinomm_train.doctor.diagnosis import Diagnosis
from dinomm_train.doctor.table import print_diagnosis
from tests.unit.dinomm_train.doctor.test_diagnosis import RATES


def shown(found: Diagnosis) -> str:
    screen = io.StringIO()
    print_diagnosis(found, Console(file=screen, width=400))
    return screen.getvalue()


def test_the_table_names_limit_and_share_of_the_ceiling() -> None:
    good = Check(name="some", is_good=True, finding="fine")
    said = shown(Diagnosis(checks=(good,), rates=RATES, batch=8, fits_in_memory=True))
    assert "MFU 25.0%" in said
    assert "A run would see about 100.0 samples/s; its limit is the step" in said
    assert "ranks" not in said


def test_rates_of_several_ranks_are_told_of_one_and_of_all() -> None:
    rates = RATES.shared_by(2, has_own_device=True)
    said = shown(Diagnosis(checks=(), rates=rates, ranks=4, assumed="they share"))
    (disk,) = (line for line in said.splitlines() if "disk" in line and "<- limit" in line)
    assert "25.0" in disk
    assert "100.0" in disk
    assert "all 4 ranks" in said
    assert "A run of 4 ranks would see about 100.0 samples/s; its limit is the disk" in said
    assert "Assumed: they share." in said
