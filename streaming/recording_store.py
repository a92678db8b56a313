"""The recordings of one server: a folder of films and their takes, and how much of the disk they may take."""

import re
import shutil
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from lhm_runtime.motion.takes import SUFFIX as TAKE_SUFFIX
from streaming.errors import RefusedError
from streaming.recording import PART, SUFFIXES

_ID: Final = re.compile(r"\d{8}-\d{6}-[a-z0-9-]{1,64}")
_TIME: Final = "%Y%m%d-%H%M%S"
_RESERVE_BYTES: Final = 256_000_000
"""Of the disk, never touched: recordings are not what fills it up."""


@dataclass(frozen=True, slots=True)
class RecordingFacts:
    """What a page says about a recording."""

    id: str
    started_at: str
    """ISO 8601, UTC."""
    bytes: int
    url: str
    """Where it is to be had."""
    motion_url: str | None
    """Where its poses are to be had; None: they were not recorded."""
    motion_bytes: int


class RecordingStore:
    """Finished recordings by id, and room for more; ``take`` may be called from any thread."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Keep at most ``limit_bytes`` in ``folder``; what a crash cut short becomes a recording, as far as it got."""
        self._folder, self._limit = folder, limit_bytes
        self._lock = threading.Lock()
        parts = sorted(folder.glob(f".*{PART}.*"), key=lambda part: part.suffix == TAKE_SUFFIX)  # films first
        for part in parts:
            whole = folder / (part.name.removeprefix(".").split(".")[0] + part.suffix)
            alone = part.suffix == TAKE_SUFFIX and _film_of(whole) is None
            if part.stat().st_size and not whole.exists() and not alone:
                part.replace(whole)
            else:
                part.unlink()
        self._used = sum(_bytes_of(path) + _bytes_of(_take_of(path)) for path in self._films())

    def listing(self) -> list[RecordingFacts]:
        """All that are complete, the newest first."""
        return [_facts(path) for path in sorted(self._films(), reverse=True)]

    def facts(self, recording_id: str) -> RecordingFacts:
        """What is known of one; raises RefusedError when there is none."""
        return _facts(self.path(recording_id))

    def path(self, recording_id: str) -> Path:
        """Its file; raises RefusedError when there is none."""
        for suffix in SUFFIXES.values() if _ID.fullmatch(recording_id) else ():
            path = self._folder / (recording_id + suffix)
            if path.is_file():
                return path
        raise RefusedError(404, "unknown_recording", f"there is no recording {recording_id[:80]!r}")

    def motion_path(self, recording_id: str) -> Path:
        """The file of its poses; raises RefusedError when there is none."""
        path = _take_of(self.path(recording_id))
        if not path.is_file():
            raise RefusedError(404, "no_motion", f"the poses of {recording_id} were not recorded, only the film")
        return path

    def begin(self, name: str) -> Path:
        """Where to write a new one.

        Raises:
            RefusedError: there is no room, or the folder cannot be made.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RefusedError(507, "no_room", f"{self._folder} cannot be made: {error.strerror}") from error
        if self._room() <= 0:
            raise RefusedError(
                507,
                "no_room",
                f"recordings fill {self._used / 1e6:.0f} MB of the {self._limit / 1e6:.0f} MB they may "
                "(storage.recordings_mb), or the disk is full; delete some",
            )
        began = datetime.now(UTC).strftime(_TIME)
        word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "avatar"
        return self._folder / f"{began}-{word}.mp4"

    def take(self, size: int) -> bool:
        """Count ``size`` more bytes, unless there is no room for them."""
        with self._lock:
            if self._room() < size:
                return False
            self._used += size
            return True

    def delete(self, recording_id: str) -> None:
        """Remove a film and its take; raises RefusedError when there is none."""
        path = self.path(recording_id)
        size = _bytes_of(path) + _bytes_of(_take_of(path))
        _take_of(path).unlink(missing_ok=True)
        path.unlink()
        with self._lock:
            self._used = max(self._used - size, 0)

    def hand_over(self, folder: Path) -> None:
        """Move all that are complete to another folder, each film after its take; raises OSError."""
        for path in self._films():
            size = _bytes_of(path) + _bytes_of(_take_of(path))
            folder.mkdir(parents=True, exist_ok=True)
            for file in (_take_of(path), path):
                if file.is_file():
                    shutil.move(file, folder / file.name)
            with self._lock:
                self._used = max(self._used - size, 0)

    def _room(self) -> int:
        free = shutil.disk_usage(self._folder).free - _RESERVE_BYTES
        return min(self._limit - self._used, free)

    def _films(self) -> list[Path]:
        known = set(SUFFIXES.values())
        return [path for path in self._folder.glob("*.*") if path.suffix in known and _ID.fullmatch(path.stem)]


def _facts(path: Path) -> RecordingFacts:
    began = datetime.strptime(path.stem[:15], _TIME).replace(tzinfo=UTC)
    url, take = f"/api/recordings/{path.stem}", _take_of(path)
    return RecordingFacts(
        id=path.stem,
        started_at=began.isoformat(timespec="seconds"),
        bytes=_bytes_of(path),
        url=url,
        motion_url=f"{url}/motion" if take.is_file() else None,
        motion_bytes=_bytes_of(take),
    )


def _take_of(film: Path) -> Path:
    return film.with_suffix(TAKE_SUFFIX)


def _film_of(take: Path) -> Path | None:
    films = (take.with_suffix(suffix) for suffix in SUFFIXES.values())
    return next((film for film in films if film.is_file()), None)


def _bytes_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
