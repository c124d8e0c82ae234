"""A diagnosis as tables on the terminal."""

from rich.console import Console
from rich.table import Table

from dinomm_train.doctor.examine import Diagnosis, Rates

_WHAT = {
    "disk": "stored samples into batches, shards not in memory",
    "reader": "the same, shards in memory",
    "views": "network input and crops",
    "step": "networks, loss, optimizer",
}


def print_diagnosis(diagnosis: Diagnosis, console: Console | None = None) -> None:
    """Print what was found."""
    console = console or Console()
    checks = Table("check", "", "finding")
    for check in diagnosis.checks:
        checks.add_row(check.name, "ok" if check.is_good else "BAD", check.finding)
    console.print(checks)
    if diagnosis.rates is None:
        return
    rates = diagnosis.rates
    table = Table("part", "samples/s", "", "what is measured", title="one process")
    table.columns[1].justify = "right"
    for name, what in _WHAT.items():
        mark = "<- limit" if name == diagnosis.limit else ""
        table.add_row(name, f"{getattr(rates, name):,.1f}", mark, what)
    console.print(table)
    console.print(_summary(diagnosis, rates))


def _summary(diagnosis: Diagnosis, rates: Rates) -> str:
    stream = rates.reader if diagnosis.fits_in_memory else rates.disk
    return (
        f"Steps of {diagnosis.batch:,} samples reach {rates.step_tflops:.3g} of "
        f"{rates.matmul_tflops:.3g} TFLOP/s (MFU {rates.mfu:.1%}). A run would see about "
        f"{min(stream, rates.compute):,.1f} samples/s; its limit is the {diagnosis.limit}."
    )
