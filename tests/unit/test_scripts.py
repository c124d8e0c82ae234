"""Shell scripts and the Dockerfile pass their linters; the job scripts keep what they rely on."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SLURM = ROOT / "docker" / "slurm"
SCRIPTS = [
    *sorted(SLURM.glob("*.sbatch")),
    ROOT / "docker" / "install.sh",
    ROOT / "examples" / "demo.sh",
    ROOT / ".ci" / "run",
]


def lint(program: str, *arguments: str | Path) -> None:
    found = shutil.which(program, path=str(Path(sys.executable).parent)) or shutil.which(program)
    assert found, f"{program} is one of the development tools: pip install -e '.[dev]'"
    result = subprocess.run([found, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_have_no_traps(script: Path) -> None:
    lint("shellcheck", script)


def test_the_dockerfile_follows_the_rules() -> None:
    lint("hadolint", ROOT / "docker" / "Dockerfile")


def test_the_image_takes_only_what_is_listed() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    for rule in rules[1:]:
        if rule.startswith("!"):
            assert (ROOT / rule[1:]).exists(), rule


@pytest.mark.parametrize("target", ["prep", "train"])
def test_the_definition_installs_by_the_steps_of_the_dockerfile(target: str) -> None:
    definition = (ROOT / "docker" / f"{target}.def").read_text()
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    base = dockerfile.split("ARG BASE=docker.io/library/")[1].split("\n")[0]
    assert re.fullmatch("python@sha256:[0-9a-f]{64}", base)
    assert f"From: {base}\n" in definition
    for step in ("system", f"dependencies {target}", "package"):
        assert f"install.sh {step}" in definition
        assert f"install.sh {step}" in dockerfile
