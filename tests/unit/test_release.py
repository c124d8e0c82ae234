"""What is said once of the distribution, and what has to agree with it."""

import re
import tomllib
from pathlib import Path

import bigearth_prep
import dinomm_train

ROOT = Path(__file__).parents[2]


def test_both_packages_have_the_version_that_the_distribution_takes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    source = project["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    assert source == "bigearth_prep.version.__version__"
    assert bigearth_prep.__version__ == dinomm_train.__version__


def test_the_citation_names_this_version_and_licence() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    stated = dict(re.findall(r"^(version|license): (.+)$", citation, flags=re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert stated == {"version": bigearth_prep.__version__, "license": project["license"]}
    assert "Apache License" in (ROOT / "LICENSE").read_text()
