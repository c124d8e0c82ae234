"""What each published defect does to the demo's scores: one small run per switch, as a table.

Usage: recipe_switches.py FOLDER [--pairs N] [--seeds N] [--only NAME ...] [--set KEY=VALUE ...]

Makes an archive in FOLDER, 8-bit shards as the published code had them, and a run and its scores
per switch and seed. What is there already is kept, so it goes on where it was stopped. Every run
takes minutes on two cores. The table goes to FOLDER/switches.md and to the terminal.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

CONFIG = Path(__file__).parent.parent / "configs" / "pretrain-demo.toml"

SENSORS = ("s1+s2", "s1", "s2")

REPAIRED_CHAIN = {
    "views.chain": "published",
    "views.published.wrap": "false",
    "views.published.gray_mixes_sensors": "false",
    "views.published.solarize_inverts_below": "false",
    "views.published.solarize_s1": "false",
    "views.published.blur_s1": "false",
}

SWITCHES: dict[str, dict[str, str]] = {
    "fixed": {},
    "D1 length cut to 96 %": {"sampling.sample_limit": "{limit}"},
    "D9 horizontal flips alone": {
        "views.crops.vertical_flip": "0",
        "views.crops.quarter_turns": "0",
    },
    "D10 missing sensor is 0": {"views.sensor_drop.fill": "0"},
    "clipping per tensor": {"optim.clip": "per_tensor"},
    "tokens decay": {"optim.decay_tokens": "true"},
    "published position table": {"model.table_px": "120", "model.table_resampling": "published"},
    "published chain, repaired": REPAIRED_CHAIN,
    "D6 gray mixes sensors": REPAIRED_CHAIN | {"views.published.gray_mixes_sensors": "true"},
    "D7 codes wrap": REPAIRED_CHAIN | {"views.published.wrap": "true"},
    "D8 solarize below 128": REPAIRED_CHAIN | {"views.published.solarize_inverts_below": "true"},
    "D8 solarize radar": REPAIRED_CHAIN | {"views.published.solarize_s1": "true"},
    "D9 blur radar": REPAIRED_CHAIN | {"views.published.blur_s1": "true"},
}
"""Settings of each row, over the demo's; those of the published chain are held against its own
repaired form."""

SHARE_KEPT = 300_000 / 311_667
"""Of the train patches, by the published code's hard-coded length."""


def main() -> int:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=SWITCHES, default=list(SWITCHES))
    parser.add_argument("--set", dest="changes", nargs="*", default=[])
    arguments = parser.parse_args()
    dataset = make_dataset(arguments.folder, arguments.pairs)
    scores = {
        name: [
            score(arguments.folder, dataset, name, seed, arguments.changes)
            for seed in range(arguments.seeds)
        ]
        for name in arguments.only
    }
    table = table_of(scores)
    (arguments.folder / "switches.md").write_text(table, encoding="utf-8")
    print(table)
    return 0


def make_dataset(folder: Path, pairs: int) -> Path:
    """8-bit shards of a made-up archive."""
    archive, dataset = folder / "archive", folder / "dataset"
    if not dataset.exists():
        call("bigearth_prep", "make-archive", archive, "--layout", "v2", "--pairs", pairs)
        tables = [f"--metadata={path}" for path in sorted(archive.glob("*.parquet"))]
        sensors = [f"--{name}={archive / f'BigEarthNet-{name.upper()}'}" for name in ("s2", "s1")]
        call(
            "bigearth_prep", "build-shards", *sensors, *tables, "--normalize=paper",
            f"--out={dataset}",
        )  # fmt: skip
    return dataset


def score(
    folder: Path, dataset: Path, name: str, seed: int, changes: list[str]
) -> dict[str, float]:
    """Micro average precision of the run's frozen features per sensor set."""
    run = folder / "runs" / f"{name.replace(' ', '-').replace('%', 'percent')}-{seed}"
    report = run / "scores" / "scores.json"
    if not report.exists():
        card = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))
        limit = int(card["splits"]["train"]["samples"] * SHARE_KEPT)
        settings = {"sampling.seed": str(seed), "views.sensor_drop.fill": "-1"} | SWITCHES[name]
        given = [f"{key}={value.format(limit=limit)}" for key, value in settings.items()]
        options = [f"--set={one}" for one in (*given, *changes)]
        call("dinomm_train", "pretrain", dataset, f"--out={run}", f"--config={CONFIG}", *options)
        call(
            "dinomm_train", "evaluate", run, dataset, "--protocol=linear", "--input-px=60",
            "--no-floor", f"--out={report.parent}",
        )  # fmt: skip
    rows = json.loads(report.read_text(encoding="utf-8"))["rows"]
    return {row["sensors"]: row["micro_ap"] for row in rows if row["network"] == "checkpoint"}


def table_of(scores: dict[str, list[dict[str, float]]]) -> str:
    """Means over seeds in percent, and how far each row is from the one it is held against."""
    lines = ["| switch | " + " | ".join(SENSORS) + " |", "| --- |" + " --- |" * len(SENSORS)]
    for name, found in scores.items():
        chain = SWITCHES[name].get("views.chain")
        base = "published chain, repaired" if chain else "fixed"
        cells = [cell(found, scores.get(base, []), sensors) for sensors in SENSORS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cell(found: list[dict[str, float]], base: list[dict[str, float]], sensors: str) -> str:
    """One mean, and its difference to the base's."""
    mean = 100 * statistics.mean(one[sensors] for one in found)
    if not base or base is found:
        return f"{mean:.1f}"
    return f"{mean:.1f} ({mean - 100 * statistics.mean(one[sensors] for one in base):+.1f})"


def call(package: str, *arguments: object) -> None:
    """Run one of the commands."""
    subprocess.run([sys.executable, "-m", package, *map(str, arguments)], check=True)  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
