"""Drive and watch the avatars of an lhm-live server. docs/protocol.md of the server describes what is spoken."""

from lhm_live_client.sender import PoseSender, Refused
from lhm_live_client.wire import pack_bones

__all__ = ["PoseSender", "Refused", "pack_bones"]
