import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from people import picture_of_person

from lhm_runtime import models
from lhm_runtime.errors import BackendError, InvalidInputError
from lhm_runtime.motion import tracker_worker
from lhm_runtime.motion.tracker import Tracker
from lhm_runtime.motion.tracker_worker import TrackerProcess, TrackerWorker
from lhm_runtime.motion.tracker_worker import _serve as serve
from lhm_runtime.types import Landmarks

pytest.importorskip("mediapipe", reason="MediaPipe is not installed")

LIMIT_S = 60.0


def serve_without_models(*arguments: Any) -> None:
    models._ASSETS = Path("nowhere")
    serve(*arguments)


def test_the_process_answers_as_a_tracker_does_and_survives_its_death() -> None:
    frames = [picture_of_person(i) for i in (0, 5)]
    large = np.repeat(np.repeat(frames[1], 3, 0), 3, 1)
    with Tracker("body") as tracker, TrackerProcess("body") as process:
        for i, frame in enumerate((*frames, large)):
            here, there = tracker.track(frame, float(i)), process.track(frame, float(i))
            assert there.image_size == (frame.shape[1], frame.shape[0])
            np.testing.assert_allclose(there.body_image, here.body_image, atol=0.01)
            np.testing.assert_array_equal(there.body_world, here.body_world)
        with pytest.raises(InvalidInputError, match="frame is 64x15"):
            process.track(np.zeros((15, 64, 3), np.uint8), 0.0)
        process.kill()
        with pytest.raises(BackendError, match="process ended: signal 9"):
            process.track(frames[0], 4.0)
        assert process.track(frames[0], 5.0).body_world is not None
    with pytest.raises(BackendError, match="closed"):
        process.track(frames[0], 6.0)
    process.close()


def test_the_newest_frame_wins_and_crashes_are_survived(caplog: pytest.LogCaptureFixture) -> None:
    frame = picture_of_person(0)
    called: list[float] = []
    with TrackerWorker("webcam", on_landmarks=lambda landmarks: called.append(landmarks.timestamp_s)) as worker:
        for i in range(10):  # while the models load
            worker.submit(frame, float(i))
        first = worker.latest(LIMIT_S)
        assert isinstance(first, Landmarks)
        assert first.timestamp_s == 9.0
        assert worker.dropped == 9
        assert worker.latest() is None  # handed out already
        worker._process.kill()
        worker.submit(frame, 10.0)
        assert wait_until(lambda: worker.failed == 1)
        worker.submit(frame, 11.0)
        assert worker.latest(LIMIT_S).timestamp_s == 11.0
    assert "tracking goes on after a failure: the tracker's process ended: signal 9" in caplog.text
    assert called == [9.0, 11.0]
    with pytest.raises(BackendError, match="closed"):
        worker.submit(frame, 12.0)
    with pytest.raises(BackendError, match="closed"):
        worker.latest(LIMIT_S)
    worker.close()


def test_it_gives_up_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_worker, "_serve", serve_without_models)
    monkeypatch.setattr(tracker_worker, "MOST_FAILURES", 2)
    with TrackerWorker() as worker:
        with pytest.raises(BackendError, match=r"gave up: the model pose_landmarker_full.task is not on this machine"):
            worker.latest(LIMIT_S)
        with pytest.raises(BackendError, match="gave up"):
            worker.submit(np.zeros((48, 64, 3), np.uint8), 9.0)


def test_closing_while_the_models_load_does_not_wait_for_them() -> None:
    worker = TrackerWorker()
    child = worker._process._child
    worker.submit(np.zeros((48, 64, 3), np.uint8), 0.0)
    worker.close()
    assert not worker._thread.is_alive()
    assert not child.process.is_alive()
    assert not child._log.exists()


def test_closing_from_the_callback() -> None:
    done = threading.Event()

    def close(_: Landmarks) -> None:
        worker.close()
        done.set()

    worker = TrackerWorker("webcam", on_landmarks=close)
    worker.submit(np.zeros((48, 64, 3), np.uint8), 0.0)
    assert done.wait(LIMIT_S)
    worker._thread.join(LIMIT_S)
    assert not worker._thread.is_alive()
    assert worker._process._child is None


def wait_until(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True
