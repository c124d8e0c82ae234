"""Print what pyproject.toml says the packages need. Usage: requirements.py FILE prep|train."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["project"]
extra = [] if sys.argv[2] == "prep" else project["optional-dependencies"][sys.argv[2]]
print("\n".join([*project["dependencies"], *extra]))
