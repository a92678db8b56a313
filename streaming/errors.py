"""What the server room raises on purpose, beside the model room's tree (lhm_runtime/errors.py).

LhmLiveError
├── ConnectError     a peer connection that does not come about (also a ConnectionError)
├── ProtocolError    bytes from outside that are no message of ours (also a ValueError)
└── RefusedError     a request the server does not grant, with its HTTP status
"""

from lhm_runtime.errors import LhmLiveError


class ConnectError(LhmLiveError, ConnectionError):
    """A peer connection did not come about; the message says what was missing."""


class ProtocolError(LhmLiveError, ValueError):
    """A message from outside is malformed, of another version, or holds numbers outside the limits."""


class RefusedError(LhmLiveError):
    """A request that is answered with an HTTP status, a code for programs and a sentence for people."""

    def __init__(self, status: int, code: str, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s
