"""What each published defect does to the demo's scores: one small run per switch, as a table.

Usage: recipe_switches.py FOLDER [--pairs N] [--seeds N] [--base-seeds N]
                          [--normalize zscore|paper ...] [--set KEY=VALUE ...]

Makes an archive in FOLDER, the demo's shards and 8-bit ones as the published code had them, and a
run per switch and seed, seed by seed, scored together. What is there already is kept, so it goes
on where it was stopped; another size or setting needs another folder. Every run takes minutes on
two cores. The tables go to FOLDER/switches.md and to the terminal.
"""

import argparse
import json
import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import click
from scipy.stats import t as student_t

from bigearth_prep.cli import commands as prep
from dinomm_train.cli import cli as train_commands

CONFIG = Path(__file__).parent.parent / "configs" / "pretrain-demo.toml"

SENSORS = ("s1+s2", "s1", "s2")

UNTRAINED = "random"
"""The row of the network as it starts, without which no other tells whether anything was learnt."""

FIXED, REPAIRED = BASES = ("fixed", "published chain, repaired")
"""Rows that others are held against."""

OUTSIDE = {"views.sensor_drop.fill": "-1"}

REPAIRED_CHAIN = OUTSIDE | {
    "views.chain": "published",
    "views.published.wrap": "false",
    "views.published.gray_mixes_sensors": "false",
    "views.published.solarize_inverts_below": "false",
    "views.published.solarize_s1": "false",
    "views.published.blur_s1": "false",
}

SWITCHES: dict[str, dict[str, dict[str, str]]] = {
    "zscore": {
        FIXED: {},
        "D1 length cut to 96 %": {"sampling.sample_limit": "{limit}"},
        "D9 horizontal flips alone": {
            "views.crops.vertical_flip": "0",
            "views.crops.quarter_turns": "0",
        },
        "clipping per tensor": {"optim.clip": "per_tensor"},
        "tokens decay": {"optim.decay_tokens": "true"},
        "published position table": {
            "model.table_px": "120",
            "model.table_resampling": "published",
        },
    },
    "paper": {
        FIXED: OUTSIDE,
        "D10 missing sensor is 0": {"views.sensor_drop.fill": "0"},
        REPAIRED: REPAIRED_CHAIN,
        "D6 gray mixes sensors": REPAIRED_CHAIN | {"views.published.gray_mixes_sensors": "true"},
        "D7 codes wrap": REPAIRED_CHAIN | {"views.published.wrap": "true"},
        "D8 solarize below 128": REPAIRED_CHAIN
        | {"views.published.solarize_inverts_below": "true"},
        "D8 solarize radar": REPAIRED_CHAIN | {"views.published.solarize_s1": "true"},
        "D9 blur radar": REPAIRED_CHAIN | {"views.published.blur_s1": "true"},
    },
}
"""Settings of each row over the demo's, by how its patches are normalized.

Those that concern 8-bit codes need `paper`, the others are seen on the demo's own `zscore`. Those
of the published chain are held against its own repaired form.
"""

SHARE_KEPT = 300_000 / 311_667
"""Of the train patches, by the published code's hard-coded length."""

CONFIDENCE = 0.95

Scores = dict[str, list[dict[str, float]]]
"""Micro average precision per row, seed and sensor set, in percent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """Where rows of one normalization are trained and scored, and with what."""

    folder: Path
    normalize: str
    changes: list[str]
    """Settings of all rows, over the demo's."""

    @property
    def dataset(self) -> Path:
        """The shards."""
        return self.folder / f"dataset-{self.normalize}"


def main() -> int:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--base-seeds", type=int, default=0, help="of rows others are held against")
    parser.add_argument("--normalize", nargs="*", choices=SWITCHES, default=list(SWITCHES))
    parser.add_argument("--set", dest="changes", nargs="*", default=[])
    arguments = parser.parse_args()
    tables = []
    for normalize in arguments.normalize:
        bench = Bench(folder=arguments.folder, normalize=normalize, changes=arguments.changes)
        make_dataset(bench, arguments.pairs)
        scores: Scores = {}
        for seed in range(max(arguments.seeds, arguments.base_seeds)):
            names = BASES if seed >= arguments.seeds else SWITCHES[normalize]
            found = score(bench, [name for name in SWITCHES[normalize] if name in names], seed)
            for name, one in found.items():
                scores.setdefault(name, []).append(one)
        tables.append(f"Patches normalized by `{normalize}`:\n\n{table_of(scores, normalize)}")
    text = "\n".join(tables)
    (arguments.folder / "switches.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


def make_dataset(bench: Bench, pairs: int) -> None:
    """Shards of a made-up archive, the same one for both normalizations."""
    archive = bench.folder / "archive"
    if not archive.exists():
        call(prep, "make-archive", archive, "--layout", "v2", "--pairs", pairs)
    if not bench.dataset.exists():
        tables = [f"--metadata={path}" for path in sorted(archive.glob("*.parquet"))]
        sensors = [f"--{name}={archive / f'BigEarthNet-{name.upper()}'}" for name in ("s2", "s1")]
        call(
            prep, "build-shards", *sensors, *tables, f"--normalize={bench.normalize}",
            f"--out={bench.dataset}",
        )  # fmt: skip


def score(bench: Bench, names: list[str], seed: int) -> dict[str, dict[str, float]]:
    """Micro average precision of frozen features, in percent, per row and sensor set."""
    report = bench.folder / f"scores-{bench.normalize}-{seed}" / "scores.json"
    found = read_scores(report)
    if not found.keys() >= {UNTRAINED, *names}:
        beside = [f"--beside={name}={train(bench, name, seed)}" for name in names]
        call(
            train_commands, "evaluate", "random", bench.dataset, f"--architecture={CONFIG}",
            *settings_of(bench, FIXED, seed), f"--seed={seed}", *beside, "--protocol=linear",
            "--input-px=60", "--no-floor", "--bootstrap=1", f"--out={report.parent}",
        )  # fmt: skip
        found = read_scores(report)
    return {name: found[name] for name in (UNTRAINED, *names)}


def read_scores(report: Path) -> dict[str, dict[str, float]]:
    """What an evaluation found, per row and sensor set; empty where there is none yet."""
    scores: dict[str, dict[str, float]] = {}
    if report.exists():
        for row in json.loads(report.read_text(encoding="utf-8"))["rows"]:
            scores.setdefault(row["network"], {})[row["sensors"]] = 100 * row["micro_ap"]
    return scores


def train(bench: Bench, name: str, seed: int) -> Path:
    """The finished run of a row and a seed."""
    file_name = name.replace(" ", "-").replace("%", "percent")
    run = bench.folder / "runs" / f"{bench.normalize}-{file_name}-{seed}"
    call(
        train_commands, "pretrain", bench.dataset, f"--out={run}", f"--config={CONFIG}",
        *settings_of(bench, name, seed),
    )  # fmt: skip
    return run


def settings_of(bench: Bench, name: str, seed: int) -> list[str]:
    """Options that make the demo's run a row's; nothing looks at the networks as they learn."""
    card = json.loads((bench.dataset / "dataset.json").read_text(encoding="utf-8"))
    limit = int(card["splits"]["train"]["samples"] * SHARE_KEPT)
    settings = {
        "sampling.seed": str(seed),
        "health.samples": "0",
        "health.knn_every_epochs": "0",
    }
    settings |= SWITCHES[bench.normalize][name]
    given = [f"{key}={value.format(limit=limit)}" for key, value in settings.items()]
    return [f"--set={one}" for one in (*given, *bench.changes)]


def base_of(name: str, normalize: str) -> str:
    """The row that this one is held against."""
    on_chain = "views.chain" in SWITCHES[normalize].get(name, {})
    return REPAIRED if on_chain and name != REPAIRED else FIXED


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """How scores vary from seed to seed, the same in every row."""

    spread: float
    """Standard deviation in percentage points, pooled over rows."""

    freedom: int
    """Degrees of freedom of that."""

    def margin(self, own: int, others: int, *, comparisons: int = 1) -> float:
        """How far means over so many seeds differ by chance, in all comparisons at once."""
        tail = (1 - CONFIDENCE) / 2 / comparisons
        reach = float(student_t.isf(tail, self.freedom))
        return reach * self.spread * math.sqrt(1 / own + 1 / others)


def noise_of(scores: Scores, sensors: str) -> Noise | None:
    """Of the trained rows; none where no row has two seeds."""
    rows = [
        [one[sensors] for one in found]
        for name, found in scores.items()
        if name != UNTRAINED and len(found) > 1
    ]
    freedom = sum(len(row) - 1 for row in rows)
    if not freedom:
        return None
    squares = sum(statistics.variance(row) * (len(row) - 1) for row in rows)
    return Noise(spread=math.sqrt(squares / freedom), freedom=freedom)


def table_of(scores: Scores, normalize: str) -> str:
    """Means over seeds in percent, and how far each row is from the one it is held against."""
    noises = {sensors: noise_of(scores, sensors) for sensors in SENSORS}
    bases = {name: base_of(name, normalize) for name in scores}
    held = [name for name, base in bases.items() if name != base]
    comparisons = len(held) * len(SENSORS)
    lines = [
        "| switch | seeds | " + " | ".join(SENSORS) + " |",
        "| --- | --- |" + " --- |" * len(SENSORS),
    ]
    for name, found in scores.items():
        base = scores[bases[name]] if name in held else []
        cells = [
            cell(
                [one[sensors] for one in found],
                [one[sensors] for one in base],
                noises[sensors],
                comparisons,
            )
            for sensors in SENSORS
        ]
        lines.append(f"| {name} | {len(found)} | " + " | ".join(cells) + " |")
    spreads = [
        f"{sensors} {noise.spread:.2f} points ({noise.freedom} degrees of freedom)"
        for sensors, noise in noises.items()
        if noise
    ]
    if spreads:
        lines += [
            "",
            f"Standard deviation over seeds, pooled over rows: {', '.join(spreads)}. In brackets: "
            f"the difference to the row it is held against, ± its {CONFIDENCE:.0%} margin of "
            f"chance; bold where it is beyond that of all {comparisons} differences together.",
        ]
    return "\n".join(lines) + "\n"


def cell(found: list[float], base: list[float], noise: Noise | None, comparisons: int) -> str:
    """One mean, and its difference to the base's, where there is one."""
    mean = statistics.mean(found)
    if not base:
        return f"{mean:.1f}"
    difference = mean - statistics.mean(base)
    if noise is None:
        return f"{mean:.1f} ({difference:+.1f})"
    told = abs(difference) > noise.margin(len(found), len(base), comparisons=comparisons)
    text = f"{difference:+.1f} ± {noise.margin(len(found), len(base)):.1f}"
    return f"{mean:.1f} ({f'**{text}**' if told else text})"


def call(commands: click.Group, *arguments: object) -> None:
    """Run one of the commands in this process, which has imported what they need."""
    code = commands.main([str(one) for one in arguments], standalone_mode=False)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    sys.exit(main())
