"""The pages as a site: built without a warning, and nothing in it is loaded from the network."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LOADED = re.compile(
    r"""<(?:script|img|iframe|source|link)\b[^>]*?"""
    r"""\b(?:src|href)\s*=\s*["']?(?:https?:)?//[^"'> ]+"""
    r"""|url\(\s*["']?(?:https?:)?//[^)]+|@import\s+["'](?:https?:)?//[^"']+"""
    # The theme's script fetches what draws these.
    r"""|class="mermaid"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return out


def test_nothing_is_loaded_from_the_network(site: Path) -> None:
    files = [path for path in site.rglob("*") if path.suffix in {".html", ".css"}]
    assert len(files) > 8
    found = {str(path.relative_to(site)): LOADED.findall(path.read_text()) for path in files}
    assert {name: loaded for name, loaded in found.items() if loaded} == {}


def test_every_page_is_in_the_navigation_or_named_by_the_build(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages <= {path.parent.name for path in site.glob("*/index.html")}


@pytest.mark.parametrize(
    "loads",
    [
        '<script src="https://x.y/z.js">',
        "<link rel=stylesheet href=//x.y/z.css>",
        "a { background: url(https://x.y/z.png) }",
    ],
)
def test_what_would_be_loaded_is_seen(loads: str) -> None:
    assert LOADED.findall(loads)
    assert not LOADED.findall('<a href="https://x.y">read</a>')
