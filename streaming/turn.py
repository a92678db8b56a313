"""Credentials of TURN servers: those of the settings, and fresh ones for a while where the server takes such.

The latter is coturn's REST scheme (draft-uberti-behave-turn-rest-00): the user's name begins with the Unix time until
which it is good, the password is its HMAC-SHA1 by a secret that both servers have.
"""

import base64
import hashlib
import hmac
import time

from pydantic import SecretStr

from streaming.config import IceServer, Rtc, Turn

_USER = "lhm-live"


def ice_servers(rtc: Rtc) -> tuple[IceServer, ...]:
    """STUN and TURN servers for one connection that begins now."""
    fresh = () if rtc.turn is None else (_lend(rtc.turn, time.time()),)
    return (*rtc.ice_servers, *fresh)


def _lend(turn: Turn, now_s: float) -> IceServer:
    username = f"{int(now_s) + 60 * turn.minutes}:{_USER}"
    digest = hmac.digest(turn.secret.get_secret_value().encode(), username.encode(), hashlib.sha1)
    return IceServer(urls=turn.urls, username=username, credential=SecretStr(base64.b64encode(digest).decode()))
