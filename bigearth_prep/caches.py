"""Where libraries may keep what they cache: in the node's temporary folder, never in a home folder.

On clusters a home folder is small, slow, read-only in a job, or not there at all. In a container
the user may have no name either, and then nobody knows of a home.
"""

import os
import pwd
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

_VARIABLES = {
    "DASK_CONFIG": "dask",
    "MPLCONFIGDIR": "matplotlib",
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
    "TRITON_CACHE_DIR": "triton",
}
"""What libraries ask for their folder, and its name. Dask reads the user's own folder as well."""


def keep_caches_out_of_home(environment: MutableMapping[str, str]) -> None:
    """Name a folder for each library that would take one in the home folder; those named stay.

    Where there is no home folder, and a library only wants to know its name, this is it.
    """
    folders = _VARIABLES if _has_home(environment) else {**_VARIABLES, "HOME": "home"}
    unset = {variable: name for variable, name in folders.items() if variable not in environment}
    if unset:
        folder = _own_folder()
        environment.update({variable: str(folder / name) for variable, name in unset.items()})


def _has_home(environment: MutableMapping[str, str]) -> bool:
    if "HOME" in environment:
        return True
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True


def _own_folder() -> Path:
    """A folder that nobody else can write to, the same one at the next start where possible."""
    folder = Path(tempfile.gettempdir()) / f"bigearth-dinomm-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="bigearth-dinomm-"))
    is_own = folder.is_dir() and not folder.is_symlink() and found.st_uid == os.getuid()
    if is_own and not found.st_mode & 0o022 and os.access(folder, os.W_OK):
        return folder
    return Path(tempfile.mkdtemp(prefix="bigearth-dinomm-"))
