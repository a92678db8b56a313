"""What sessions are, in storage that all machines share, so that each can begin again elsewhere.

One small JSON file a session. A seat writes its session's when it begins and whenever the session has changed; whoever
wrote last holds the session, and who finds another one's name in it lets go of the session.
"""

import json
import re
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError
from structlog.stdlib import get_logger

from streaming.cluster.storage import open_storage, raising_os_error
from streaming.settings import NewSession

SESSION_ID: Final = re.compile(r"[0-9a-f]{8}")

_log = get_logger(__name__)


class Record(BaseModel):
    """A session, as far as another machine has to know it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    wish: NewSession
    """With the settings as they are by now."""
    generation: int
    """How often it has begun."""
    seat: str
    """Who holds it."""


class Records:
    """The sessions in one place, and which nodes are being emptied; every method may block, and raise OSError."""

    def __init__(self, url: str | Path) -> None:
        """Keep them in a folder, or under anything that fsspec opens, as ``s3://bucket/prefix``.

        Raises:
            InvalidInputError: nothing here opens such a url.
        """
        self._files, self._root = open_storage(url)
        self._is_folder = "file" in _protocols(self._files)

    @raising_os_error()
    def prepare(self) -> None:
        """Make the folders, where there are such; done by gateways alone, so that nobody writes beside a lost mount."""
        for folder in ("sessions", "draining"):
            self._files.makedirs(f"{self._root}/{folder}", exist_ok=True)

    def read(self, session: str) -> Record | None:
        """The session's record; None where there is none, or what is there cannot be read."""
        data = self._get(f"sessions/{session}.json")
        try:
            return None if data is None else Record.model_validate_json(data)
        except ValidationError as error:  # of another version, or cut short by a crash
            _log.warning("unreadable record", session=session, reason=str(error))
            return None

    def write(self, session: str, record: Record) -> None:
        """Put a record in the place of what was there."""
        self._put(f"sessions/{session}.json", record.model_dump_json().encode())

    def remove(self, session: str) -> None:
        """Forget a session."""
        self._delete(f"sessions/{session}.json")

    def sessions(self) -> set[str]:
        """Of all sessions that are to run."""
        return {name for name in self._names("sessions") if SESSION_ID.fullmatch(name)}

    def draining(self) -> set[str]:
        """Nodes that are being emptied."""
        return self._names("draining")

    def drain(self, node: str, begin: bool) -> None:
        """Begin to empty a node, or let it have sessions again."""
        if begin:
            self._put(f"draining/{node}.json", json.dumps({"node": node}).encode())
        else:
            self._delete(f"draining/{node}.json")

    @raising_os_error()
    def _names(self, folder: str) -> set[str]:
        try:
            found: list[Any] = self._files.ls(f"{self._root}/{folder}", detail=False, refresh=True)
        except FileNotFoundError:
            self._require_storage()
            return set()
        return {Path(str(path)).stem for path in found if str(path).endswith(".json")}

    @raising_os_error()
    def _get(self, name: str) -> bytes | None:
        try:
            return bytes(self._files.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            self._require_storage()
            return None

    @raising_os_error()
    def _put(self, name: str, data: bytes) -> None:
        path = f"{self._root}/{name}"
        if not self._is_folder:  # an object appears whole or not at all
            self._files.pipe_file(path, data)
            return
        part = f"{path}.{id(self):x}.part"
        self._files.pipe_file(part, data)
        Path(part).replace(path)

    @raising_os_error()
    def _delete(self, name: str) -> None:
        try:
            self._files.rm_file(f"{self._root}/{name}")
        except FileNotFoundError:
            self._require_storage()

    def _require_storage(self) -> None:
        """Raises OSError where nothing is found because the storage is gone: what gateways made is missing."""
        if self._is_folder and not Path(self._root, "sessions").is_dir():
            raise OSError(f"the shared storage {self._root} is not there: is it mounted?")


def _protocols(files: Any) -> tuple[str, ...]:
    protocol = files.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
