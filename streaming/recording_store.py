"""The recordings of one server: a folder of films, and how much of the disk they may take."""

import re
import shutil
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

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


class RecordingStore:
    """Finished recordings by id, and room for more; ``take`` may be called from any thread."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Keep at most ``limit_bytes`` in ``folder``; what a crash cut short becomes a recording, as far as it got."""
        self._folder, self._limit = folder, limit_bytes
        self._lock = threading.Lock()
        for part in folder.glob(f".*{PART}.*"):
            whole = folder / (part.name.removeprefix(".").split(".")[0] + part.suffix)
            if part.stat().st_size and not whole.exists():
                part.replace(whole)
            else:
                part.unlink()
        self._used = sum(path.stat().st_size for path in self._films())

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
        """Remove one; raises RefusedError when there is none."""
        path = self.path(recording_id)
        size = path.stat().st_size
        path.unlink()
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
    return RecordingFacts(
        path.stem, began.isoformat(timespec="seconds"), path.stat().st_size, f"/api/recordings/{path.stem}"
    )
