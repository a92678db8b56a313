"""What each route asks of whoever calls it, where the server asks for tokens.

RULES is the whole of it. A route that is not in it does not exist for the network; a test walks all routes.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from streaming.access import Role

Counted = Literal["starts", "uploads", "offers", "failures"]
"""What one address may do only so often."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a route asks of whoever calls it."""

    method: str
    """Or WS for a websocket."""
    path: str
    """As the route has it; rules with ``{session}`` are about that session."""
    needs: Role | None
    """None: nothing, anybody may."""
    counts: Counted | None = None
    enters: bool = False
    """Whether the studio begins here: a token in the address becomes a cookie."""


RULES: Final = (
    # pages, which hold nothing of anybody
    Rule("GET", "/", None, enters=True),
    Rule("GET", "/check", None, enters=True),
    Rule("GET", "/view/{session}", None),
    Rule("GET", "/obs/{session}", None),
    Rule("GET", "/assets/{path:path}", None),
    Rule("GET", "/models/{name}", None),
    Rule("GET", "/healthz", None),
    # the server
    Rule("GET", "/readyz", "admin"),
    Rule("GET", "/metrics", "admin"),
    Rule("GET", "/docs", "view"),
    Rule("GET", "/docs/oauth2-redirect", "view"),
    Rule("GET", "/redoc", "view"),
    Rule("GET", "/openapi.json", "view"),
    Rule("GET", "/api/state", "drive"),
    Rule("GET", "/api/rigs", "drive"),
    # avatars
    Rule("POST", "/api/avatars", "admin", "uploads"),
    Rule("DELETE", "/api/avatars/{avatar}", "admin"),
    Rule("GET", "/api/avatars/{avatar}/preview.png", "drive"),
    Rule("GET", "/api/avatars/{avatar}/backdrop.jpg", "drive"),
    Rule("GET", "/api/jobs/{job}", "admin"),
    Rule("GET", "/api/jobs/{job}/events", "admin"),
    # sessions
    Rule("POST", "/api/sessions", "admin", "starts"),
    Rule("GET", "/api/sessions/{session}", "view"),
    Rule("PATCH", "/api/sessions/{session}", "drive"),
    Rule("DELETE", "/api/sessions/{session}", "admin"),
    Rule("GET", "/api/sessions/{session}/avatar", "view"),  # and only where it is shared
    Rule("POST", "/api/sessions/{session}/links", "drive"),
    # its relay, and watching there
    Rule("GET", "/api/sessions/{session}/relay", "admin"),
    Rule("POST", "/api/sessions/{session}/relay/viewers", "view", "offers"),
    Rule("PUT", "/api/sessions/{session}/relay/viewers/{viewer}", "view"),
    Rule("DELETE", "/api/sessions/{session}/relay/viewers/{viewer}", "view"),
    # recordings
    Rule("POST", "/api/sessions/{session}/recording", "admin"),
    Rule("DELETE", "/api/sessions/{session}/recording", "admin"),
    Rule("GET", "/api/recordings", "admin"),
    Rule("GET", "/api/recordings/{recording}", "admin"),
    Rule("GET", "/api/recordings/{recording}/motion", "admin"),
    Rule("DELETE", "/api/recordings/{recording}", "admin"),
    # signalling; the route itself asks for the role drive where a page wants to drive
    Rule("WS", "/v1/signal/{session}", "view", "offers"),
    Rule("WS", "/v1/pose/{session}", "drive", "offers"),
    Rule("WS", "/v1/poses/{session}", "view", "offers"),
    Rule("OPTIONS", "/whep/{session}", "view"),
    Rule("POST", "/whep/{session}", "view", "offers"),
    Rule("PATCH", "/whep/{session}/{peer}", "view"),
    Rule("DELETE", "/whep/{session}/{peer}", "view"),
    Rule("OPTIONS", "/whip/{session}", "drive"),
    Rule("POST", "/whip/{session}", "drive", "offers"),
    Rule("PATCH", "/whip/{session}/{peer}", "drive"),
    Rule("DELETE", "/whip/{session}/{peer}", "drive"),
    # icons and the like beside the pages
    Rule("GET", "/{file}", None),
)


def find_rule(method: str, path: str) -> tuple[Rule | None, str | None]:
    """The rule for a request, and the session that it is about; None where there is none."""
    if not (path.isascii() and path.isprintable()):  # a router may take "/metrics\n" for "/metrics"
        return None, None
    method = "GET" if method == "HEAD" else method
    for rule, pattern in _PATTERNS:
        if rule.method == method and (match := pattern.fullmatch(path)):
            return rule, match.groupdict().get("session")
    return None, None


def _pattern(path: str) -> re.Pattern[str]:
    """A path as a regular expression; what lies beside the pages has a dot in its name."""
    names = {"{path:path}": ".*", "{file}": r"[^/]*\.[^/]*"}
    parts = re.split(r"(\{[^}]+\})", path)
    return re.compile(
        "".join(names.get(p) or (f"(?P<{p[1:-1]}>[^/]+)" if p[:1] == "{" else re.escape(p)) for p in parts)
    )


_PATTERNS: Final = tuple((rule, _pattern(rule.path)) for rule in RULES)
