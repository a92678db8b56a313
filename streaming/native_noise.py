"""Standard error without what MediaPipe and TensorFlow print there: a dozen lines at each start, for nobody."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

_STDERR = 2


@contextmanager
def native_noise_apart(context: typer.Context) -> Iterator[None]:
    """What native code prints is dropped, unless ``lhm-live --debug`` was asked for; what Python prints is not."""
    ours = sys.stderr
    is_captured = ours is not sys.__stderr__
    if is_captured or context.find_root().params.get("debug"):
        yield
        return
    ours.flush()
    kept = os.dup(_STDERR)
    with open(os.devnull, "w") as nowhere, os.fdopen(kept, "w", buffering=1, errors=ours.errors) as still:  # noqa: PTH123
        os.dup2(nowhere.fileno(), _STDERR)
        sys.stderr = still
        try:
            yield
        finally:
            still.flush()
            sys.stderr = ours
            os.dup2(kept, _STDERR)
