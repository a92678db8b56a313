"""A Tracker in a process of its own, and a thread that feeds it the newest frame.

A process, though MediaPipe lets go of the GIL (measured: a thread that sleeps for 0.5 ms beside it wakes up after
0.56 ms in the median, 2.0 ms at the 99th percentile): MediaPipe may end its process when a check inside it fails, and
the server should live on; its half a gigabyte goes back to the system at once; and what it prints stays out of the
way. Handing over a 1280x720 frame costs 2.3 ms.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import UInt8

from lhm_runtime.errors import BackendError, LhmLiveError
from lhm_runtime.motion.tracker import Mode, Tracker, check_frame, long_side, resize_landmarks, shrink
from lhm_runtime.types import Landmarks

START_LIMIT_S = 60.0
"""How long the models may take to load."""
FRAME_LIMIT_S = 10.0
"""How long a frame may take before its process counts as stuck."""
MOST_FAILURES = 3
"""TrackerWorker gives up after this many failures in succession."""

_CLOSE_LIMIT_S = 3.0
_CHATTER = ("I0", "W0", "INFO:", "WARNING:")  # how MediaPipe's harmless lines begin
_LOG = logging.getLogger(__name__)


class TrackerProcess:
    """A Tracker elsewhere, with its arguments and results. Starts on construction; ``close`` it. For one thread."""

    def __init__(self, mode: Mode = "auto", *, mirror: bool = False) -> None:
        self._mode: Mode = mode
        self._mirror = mirror
        self._closed = False
        self._child: _Child | None = _Child(mode, mirror=mirror)

    def wait_until_ready(self) -> None:
        """Return once the models are loaded; raises BackendError when they do not load."""
        if self._closed:
            raise BackendError("the tracker is closed; make a new one")
        if self._child is None:
            self._child = _Child(self._mode, mirror=self._mirror)
        if not self._child.ready:
            try:
                self._receive(START_LIMIT_S)
            except BackendError:
                self._drop(_CLOSE_LIMIT_S)
                raise
            self._child.ready = True

    def track(self, frame: UInt8[np.ndarray, "h w 3"], timestamp_s: float) -> Landmarks:
        """See one frame, as ``Tracker.track``.

        Raises:
            InvalidInputError: as ``Tracker.track``.
            BackendError: as ``Tracker.track``; or the process ended or got stuck: the next frame starts a new one.
        """
        check_frame(frame, timestamp_s)
        self.wait_until_ready()
        if self._child is None:
            raise BackendError("the tracker was closed meanwhile")
        picture = shrink(frame, long_side(self._mode))
        with contextlib.suppress(OSError):  # it has ended: receiving says how
            self._child.connection.send((picture.shape, timestamp_s))
            self._child.connection.send_bytes(picture.reshape(-1).data)
        landmarks = self._receive(FRAME_LIMIT_S)
        if landmarks is None:
            raise BackendError("the tracker's process gave no answer to a frame")
        return resize_landmarks(landmarks, (frame.shape[1], frame.shape[0]))

    def kill(self) -> None:
        """End the process at once, from any thread; ``track`` then raises BackendError."""
        child = self._child
        if child is not None:
            child.process.kill()

    def close(self) -> None:
        """End the process; safe to call again."""
        self._closed = True
        self._drop(_CLOSE_LIMIT_S)

    def __enter__(self) -> "TrackerProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self, limit_s: float) -> Landmarks | None:
        """The child's answer; raises BackendError in its name, or about its end."""
        child = self._child
        if child is None:
            raise BackendError("the tracker was closed meanwhile")
        try:
            answered = child.connection.poll(limit_s)
            answer = child.connection.recv() if answered else None
        except (EOFError, OSError):
            raise BackendError(f"the tracker's process ended: {self._drop(_CLOSE_LIMIT_S)}") from None
        if not answered:
            raise BackendError(f"the tracker's process did not answer in {limit_s:g} s and was ended: {self._drop(0)}")
        if isinstance(answer, str):
            raise BackendError(answer)
        return answer if isinstance(answer, Landmarks) else None

    def _drop(self, patience_s: float) -> str:
        """End the child, and say how it went."""
        child, self._child = self._child, None
        return "" if child is None else child.end(patience_s)


class TrackerWorker:
    """Tracks the newest frame, and drops those that a newer one overtakes. ``close`` it; for any thread."""

    def __init__(
        self,
        mode: Mode = "auto",
        *,
        mirror: bool = False,
        on_landmarks: Callable[[Landmarks], None] | None = None,
    ) -> None:
        """Return at once; frames wait until the models are loaded.

        Args:
            mode: as for ``Tracker``.
            mirror: as for ``Tracker``.
            on_landmarks: called with each result, from the worker's thread; it should return soon and not raise.
        """
        self._on_landmarks = on_landmarks
        self._changed = threading.Condition()
        self._waiting: tuple[np.ndarray, float] | None = None
        self._newest: Landmarks | None = None
        self._error: BackendError | None = None
        self._closed = False
        self._dropped = 0
        self._failed = 0
        self._process = TrackerProcess(mode, mirror=mirror)
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many frames were overtaken by newer ones."""
        return self._dropped

    @property
    def failed(self) -> int:
        """How many failures the worker survived; each may have cost a frame."""
        return self._failed

    def submit(self, frame: UInt8[np.ndarray, "h w 3"], timestamp_s: float) -> None:
        """Hand over a frame, which must not be written to afterwards; never waits.

        Raises:
            InvalidInputError: as ``Tracker.track``.
            BackendError: the worker is closed, or has given up after MOST_FAILURES failures in succession.
        """
        check_frame(frame, timestamp_s)
        with self._changed:
            self._require_alive()
            self._dropped += self._waiting is not None
            self._waiting = (frame, timestamp_s)
            self._changed.notify_all()

    def latest(self, timeout_s: float = 0.0) -> Landmarks | None:
        """The newest result that was not handed out yet; None when none comes within ``timeout_s``.

        Raises:
            BackendError: as ``submit``.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._error or self._closed, timeout_s)
            newest, self._newest = self._newest, None
            if newest is None:
                self._require_alive()
            return newest

    def close(self) -> None:
        """Stop; a frame being tracked is finished if that takes no longer than moments. Safe to call again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if threading.current_thread() is self._thread:
            return  # from on_landmarks: the thread ends itself after it
        self._thread.join(1.0)
        if self._thread.is_alive():  # still loading, or stuck
            self._process.kill()
            self._thread.join()

    def __enter__(self) -> "TrackerWorker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require_alive(self) -> None:
        if self._error is not None:
            raise BackendError(f"the tracker gave up: {self._error}") from self._error
        if self._closed:
            raise BackendError("the tracker is closed; make a new one")

    def _run(self) -> None:
        try:
            with self._process as process:
                self._track_all(process)
        finally:  # also when on_landmarks raises: nobody should wait for more
            with self._changed:
                self._closed = True
                self._changed.notify_all()

    def _track_all(self, process: TrackerProcess) -> None:
        failures = 0
        while not self._closed:
            try:
                process.wait_until_ready()  # before a frame is chosen: frames wait, and the newest should win
                task = self._next()
                landmarks = None if task is None else process.track(*task)
            except BackendError as error:
                failures += 1
                self._failed += 1
                if failures >= MOST_FAILURES:
                    self._error = error
                    return
                if not self._closed:
                    _LOG.warning("tracking goes on after a failure: %s", error)
                continue
            if landmarks is None:
                return
            failures = 0
            with self._changed:
                self._newest = landmarks
                self._changed.notify_all()
            if self._on_landmarks is not None:
                self._on_landmarks(landmarks)

    def _next(self) -> tuple[np.ndarray, float] | None:
        """Wait for a frame; None when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._closed)
            task, self._waiting = self._waiting, None
            return None if self._closed else task


class _Child:
    """A running process and what belongs to it."""

    def __init__(self, mode: Mode, *, mirror: bool) -> None:
        # spawn: a fork of a process with threads may stand still
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        descriptor, path = tempfile.mkstemp(prefix="lhm-live-tracker-", suffix=".log")
        os.close(descriptor)
        self._log = Path(path)
        weakref.finalize(self, self._log.unlink, missing_ok=True)  # also when nobody closes it
        self.process = context.Process(
            target=_serve, args=(theirs, path, mode, mirror), name="lhm-live-tracker", daemon=True
        )
        self.ready = False
        self.process.start()
        theirs.close()  # so that its end is noticed

    def end(self, patience_s: float) -> str:
        """Its exit code, and the last line it printed."""
        self.connection.close()  # tells it to end
        self.process.join(patience_s)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        printed = self._log.read_text(errors="replace").splitlines()
        self._log.unlink(missing_ok=True)
        lines = [line for line in printed if line.strip() and not line.startswith(_CHATTER)]
        code = self.process.exitcode or 0
        how = f"signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"
        return f"{how}; {lines[-1]}" if lines else how


def _serve(connection: Connection, log: str, mode: Mode, mirror: bool) -> None:
    """Answer frames with Landmarks, or with what went wrong, until the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes the connection
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 2)  # MediaPipe prints much, and its last line before it dies is worth knowing
    os.close(descriptor)
    with contextlib.suppress(EOFError, OSError), contextlib.ExitStack() as stack:
        try:
            tracker = stack.enter_context(Tracker(mode, mirror=mirror))
        except LhmLiveError as error:
            connection.send(str(error))
            return
        connection.send(True)
        while True:
            shape, timestamp_s = connection.recv()
            frame = np.frombuffer(connection.recv_bytes(), np.uint8).reshape(shape)
            try:
                connection.send(tracker.track(frame, timestamp_s))
            except LhmLiveError as error:
                connection.send(str(error))
