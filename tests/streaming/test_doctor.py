import ctypes

import numpy as np
import pytest

from lhm_runtime.errors import BackendError
from streaming import doctor
from streaming.doctor import Finding, examine, works


def finding(subject: str, findings: list[Finding]) -> Finding:
    return next(each for each in findings if each.subject == subject)


def test_this_machine_can_draw_and_record() -> None:
    findings = examine()
    assert works(findings)
    assert finding("rasterizer kernel", findings).verdict == "ok"
    assert "libx264" in finding("video encoders", findings).detail
    assert finding("python", findings).detail.startswith("3.")


def test_a_missing_kernel_is_broken_and_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> tuple[str, ...]:
        raise BackendError("the kernel was not built; install g++")

    monkeypatch.setattr(doctor, "runnable", absent)
    findings = examine()
    assert not works(findings)
    assert finding("rasterizer kernel", findings) == Finding(
        "rasterizer kernel", "broken", "the kernel was not built; install g++"
    )
    assert finding("test picture", findings).verdict == "broken"


def test_a_kernel_that_draws_nonsense_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "rasterize", lambda *_, **__: np.zeros((32, 32, 3), np.uint8))
    found = finding("test picture", examine())
    assert found.verdict == "broken"
    assert "[0, 0, 0] in the middle" in found.detail


def test_a_data_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LHM_LIVE_STORAGE__DATA", "/dev/null/avatars")
    found = finding("data folder", examine())
    assert (found.verdict, "/dev/null/avatars" in found.detail) == ("broken", True)
    monkeypatch.setenv("LHM_LIVE_STORAGE__DATE", "elsewhere")
    assert "did you mean storage.data?" in finding("data folder", examine()).detail


def test_no_h264_encoder_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "try_encoder", lambda name: "" if name == "libvpx" else "no driver")
    findings = examine()
    assert not works(findings)
    assert finding("video encoders", findings).verdict == "broken"
    assert "libx264 (no driver)" in finding("other encoders", findings).detail


def test_missing_libraries_come_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ctypes.CDLL

    def load(name: str) -> ctypes.CDLL:
        if name in {"libEGL.so.1", "libGL.so.1", "libcuda.so.1"}:
            raise OSError(name)
        return real(name)

    monkeypatch.setattr(doctor.ctypes, "CDLL", load)
    monkeypatch.setattr(
        doctor, "SYSTEM_LIBRARIES", {"libEGL.so.1": "libegl1", "libc.so.6": "libc6", "libGL.so.1": "libgl1"}
    )
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    findings = examine()
    found = finding("mediapipe's libraries", findings)
    assert found.verdict == "absent"
    assert "sudo apt-get install libegl1 libgl1`" in found.detail
    assert finding("nvidia gpu", findings).verdict == "absent"
    assert works(findings)


def test_absent_extras_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> str:
        raise doctor.importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(doctor.importlib.metadata, "version", absent)
    assert "lhm-live[cuda]" in finding("gsplat", examine()).detail
