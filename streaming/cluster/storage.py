"""Storage that all machines share, as fsspec opens it; whatever goes wrong with it is an OSError."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec

from lhm_runtime.errors import InvalidInputError


def open_storage(url: str | Path) -> tuple[Any, str]:
    """The file system of a folder, or of a url as ``s3://bucket/prefix``, and the path in it.

    Raises:
        InvalidInputError: nothing here opens such a url.
    """
    try:
        files, root = fsspec.core.url_to_fs(str(url), use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise InvalidInputError(f"cluster.storage {url} cannot be opened: {error}") from error
    return files, str(root).rstrip("/")


@contextmanager
def raising_os_error() -> Iterator[None]:
    """Also a decorator: each file system has errors of its own for a server that does not answer."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"the shared storage fails: {error!r}") from error
