"""Freed memory stays with the process, whatever Dask has set for its workers."""

import ctypes
import os
import subprocess
import sys

import pytest

from bigearth_prep.allocator import keep_freed_memory

_FAULTS_OF_PATCHES = """
import resource, sys, threading
import numpy as np
from bigearth_prep.allocator import keep_freed_memory

def patches(count):
    for _ in range(count):
        np.ones((12, 120, 120), np.float32)

def work():
    if sys.argv[1] == "kept":
        keep_freed_memory()
    patches(5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    patches(100)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def _page_faults(how: str) -> int:
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", _FAULTS_OF_PATCHES, how]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(run.stdout)


def test_arrays_of_patches_take_pages_once() -> None:
    assert _page_faults("given back") > 100 * 100
    assert _page_faults("kept") < 100


def test_a_system_without_glibc_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    keep_freed_memory.__wrapped__()
