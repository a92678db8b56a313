"""The C++ kernel under AddressSanitizer and UBSan, for a minute on CI and a few seconds elsewhere."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lhm_runtime.rasterizer.cpu import library

SOURCES = Path(library.__file__).parent
SECONDS = 60 if os.environ.get("CI") else 5


@pytest.mark.skipif(not {"v3"} <= set(library.runnable()), reason="the fuzz target is built for x86-64-v3")
def test_no_scene_faults_the_kernel(tmp_path) -> None:
    cmake = shutil.which("cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert cmake is not None, "cmake is part of the dev extra"
    configure = [cmake, "-S", SOURCES, "-B", tmp_path, "-DLHM_SANITIZE=ON", "-DCMAKE_BUILD_TYPE=Release"]
    subprocess.run(configure, check=True, capture_output=True, timeout=120)
    subprocess.run(
        [cmake, "--build", tmp_path, "--target", "fuzz_kernel"], check=True, capture_output=True, timeout=300
    )
    run = subprocess.run(
        [tmp_path / "fuzz_kernel", str(SECONDS), str(os.getpid())],
        capture_output=True,
        text=True,
        timeout=SECONDS + 120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout.split()[0]) > 100
