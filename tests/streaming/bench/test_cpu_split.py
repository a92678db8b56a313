import subprocess
import sys
import threading
import time

import pytest

from streaming.bench.cpu_split import CpuClock, _kind, read_cpu_clock


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_threads_and_children_are_charged_with_what_they_use() -> None:
    before = read_cpu_clock()
    busy = "import time\nend = time.process_time() + 1.0\nwhile time.process_time() < end: pass\ntime.sleep(30)"
    child = subprocess.Popen([sys.executable, "-c", busy])
    thread = threading.Thread(target=lambda: (burn(0.3), time.sleep(3)), name="render")
    thread.start()
    try:
        end = time.monotonic() + 30
        while read_cpu_clock().used.get("other processes", 0.0) < 0.9 and time.monotonic() < end:
            time.sleep(0.05)
        while read_cpu_clock().used.get("server: draw", 0.0) < 0.29 and time.monotonic() < end:
            time.sleep(0.05)
        after = read_cpu_clock()
    finally:
        child.kill()
        child.wait()
    took = after.at - before.at
    shares = after.shares_since(before)
    assert shares["server: draw"] == pytest.approx(100 * 0.3 / took, rel=0.3)
    assert shares["other processes"] >= 100 * 0.8 / took  # what others had used before may have ended with them
    thread.join()


def test_shares_leave_out_what_hardly_counts() -> None:
    before, after = CpuClock(10.0, {"a": 1.0}), CpuClock(12.0, {"a": 2.0, "b": 0.5, "c": 0.001})
    assert after.shares_since(before) == {"a": 50.0, "b": 25.0}


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("/usr/lib/chromium/chromium --headless=new about:blank", "chromium: browser"),
        ("/usr/lib/chromium/chromium --type=renderer --lang=en", "chromium: renderer"),
        (
            "chromium --type=utility --utility-sub-type=video_capture.mojom.VideoCaptureService",
            "chromium: video_capture",
        ),
        ("python -c from_multiprocessing --multiprocessing-fork", "tracker, or a server measured beside"),
        ("sleep 5", "other processes"),
    ],
)
def test_processes_are_told_apart(command: str, kind: str) -> None:
    assert _kind(command.split(" ")) == kind
