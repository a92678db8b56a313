"""A folder's twin in storage that all machines share: what is there is fetched when it is needed and has changed."""

import secrets
from pathlib import Path
from typing import Any, Final

from structlog.stdlib import get_logger

from streaming.cluster.storage import open_storage, raising_os_error

_VERSION_KEYS: Final = ("ETag", "etag", "LastModified", "mtime", "size")

_log = get_logger(__name__)


class Mirror:
    """Files of one folder, here and there; every method may block, and raises OSError where it says so."""

    def __init__(self, url: str, folder: Path) -> None:
        """Keep copies of what is under ``url`` (anything that fsspec opens) in ``folder``.

        Raises:
            InvalidInputError: nothing here opens such a url.
        """
        self._files, self._root = open_storage(url)
        self._folder = folder
        self._have: dict[str, tuple[str, ...]] = {}
        self._there: dict[str, tuple[str, ...]] = {}

    def names(self) -> set[str]:
        """What there is; what there was, where the storage cannot be reached."""
        try:
            with raising_os_error():
                found: list[dict[str, Any]] = self._files.ls(self._root, detail=True, refresh=True)
        except FileNotFoundError:
            self._there = {}
        except OSError as error:
            _log.warning("no listing", storage=self._root, reason=str(error))
        else:
            self._there = {Path(str(entry["name"])).name: _version(entry) for entry in found}
        return set(self._there)

    def fetch(self, name: str) -> None:
        """Have the newest of a file here; an older one has to do where the storage cannot be reached."""
        version = self._there.get(name)
        path = self._folder / name
        if version is None or (self._have.get(name) == version and path.is_file()):
            return
        part = path.with_name(f".{name}.{secrets.token_hex(4)}.part")
        try:
            with raising_os_error():
                part.write_bytes(self._files.cat_file(f"{self._root}/{name}"))
            part.replace(path)
            self._have[name] = version
        except OSError as error:
            part.unlink(missing_ok=True)
            _log.warning("not fetched", file=name, reason=str(error))

    @raising_os_error()
    def send(self, name: str) -> None:
        """Put a file of the folder there, if the folder has it; raises OSError where that fails."""
        path = self._folder / name
        if path.is_file():
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(f"{self._root}/{name}", path.read_bytes())

    @raising_os_error()
    def remove(self, name: str) -> None:
        """Remove a file there; raises OSError where that fails."""
        try:
            self._files.rm_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return


def _version(entry: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(entry[key]) for key in _VERSION_KEYS if key in entry)
