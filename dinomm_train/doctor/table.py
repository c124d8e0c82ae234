"""A diagnosis as tables on the terminal."""

from rich.console import Console
from rich.table import Table

from dinomm_train.doctor.diagnosis import Diagnosis, Rates

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
    console.print(_rates_table(diagnosis, diagnosis.rates))
    console.print(_summary(diagnosis, diagnosis.rates))


def _rates_table(diagnosis: Diagnosis, rates: Rates) -> Table:
    """Rates of a rank, and beside them those of the run where it has several."""
    ranks = diagnosis.ranks
    columns = ("a rank", f"all {ranks:,} ranks") if ranks > 1 else ("a rank",)
    table = Table("part", title="samples/s")
    for column in columns:
        table.add_column(column, justify="right")
    table.add_column()
    table.add_column("what is measured")
    for name, what in _WHAT.items():
        rate = getattr(rates, name)
        shown = [f"{one:,.1f}" for one in (rate, rate * ranks)[: len(columns)]]
        table.add_row(name, *shown, "<- limit" if name == diagnosis.limit else "", what)
    return table


def _summary(diagnosis: Diagnosis, rates: Rates) -> str:
    ranks = f" of {diagnosis.ranks:,} ranks" if diagnosis.ranks > 1 else ""
    assumed = f" Assumed: {diagnosis.assumed}." if diagnosis.assumed else ""
    return (
        f"Steps of {diagnosis.batch:,} samples reach {rates.step_tflops:.3g} of "
        f"{rates.peak_tflops:.3g} TFLOP/s (MFU {rates.mfu:.1%}). A run{ranks} would see about "
        f"{diagnosis.run_rate:,.1f} samples/s; its limit is the {diagnosis.limit}.{assumed}"
    )
