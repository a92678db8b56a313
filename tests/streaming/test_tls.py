"""https with a certificate of one's own: it works, and what is wrong with one is said before anything starts."""

import ssl
from pathlib import Path

import httpx
import pytest
from certificates import write_certificate
from live import add_avatar, hear, run, small_config
from websockets.asyncio.client import connect

from lhm_runtime.avatar import Avatar
from lhm_runtime.errors import InvalidInputError
from streaming import server
from streaming.services import Services
from streaming.tls import certificate_names


def test_the_page_comes_over_https_and_signals_over_wss(avatar: Avatar, tmp_path: Path) -> None:
    files = write_certificate(tmp_path)
    secret = "the secret of a test, which is long"  # noqa: S105
    config = small_config(
        tmp_path, server={**files, "port": 0}, access={"required": "always", "secret": secret}, log={"level": "error"}
    )
    add_avatar(tmp_path, avatar, "someone")
    seen: list[str] = []

    async def visit(services: Services, address: str) -> None:
        seen.append(address)
        port = httpx.URL(address).port
        trust = ssl.create_default_context(cafile=files["tls_cert"])
        token = server.sign(secret, server.Grant("admin", expires_s=2**31))
        async with httpx.AsyncClient(base_url=f"https://localhost:{port}", verify=trust, trust_env=False) as http:
            entered = await http.get("/", params={"token": token})
            assert "; Secure" in entered.headers["set-cookie"]
            session = (await http.post("/api/sessions", json={"avatar": "someone"})).json()["id"]
            named = await http.get("/api/state", headers={"host": f"studio.test:{port}"})
            assert named.status_code == 200
            url = f"wss://localhost:{port}/v1/signal/{session}?role=view&token={token}"
            async with connect(url, ssl=trust, proxy=None) as socket:
                assert (await hear(socket, "state"))["id"] == session

    async def main() -> None:
        await server._serve(config, visit, None)

    run(main())
    assert seen[0].startswith("https://localhost:")  # of the certificate's names the first that is none of many


def test_what_is_wrong_with_a_certificate_is_said_at_the_start(tmp_path: Path) -> None:
    good = write_certificate(tmp_path)
    assert certificate_names(small_config(tmp_path, server=good)) == {"studio.test", "*.rooms.test", "localhost"}
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    other = write_certificate(tmp_path, name="other")
    for files, complaint in (
        ({"tls_cert": good["tls_cert"]}, "tls_cert is given and server.tls_key is not"),
        ({"tls_key": good["tls_key"]}, "tls_key is given and server.tls_cert is not"),
        (
            {**good, "tls_cert": str(tmp_path / "none.pem")},
            r"none\.pem \(server\.tls_cert\) cannot be read: No such file",
        ),
        ({**good, "tls_cert": str(text)}, "holds no certificate"),
        (
            {**good, "tls_key": str(tmp_path / "none.key")},
            r"none\.key \(server\.tls_key\) cannot be read: No such file",
        ),
        ({**good, "tls_key": str(text)}, "does not go with the certificate"),
        ({**good, "tls_key": other["tls_key"]}, "does not go with the certificate"),
        (write_certificate(tmp_path, days=(-9, -2), name="old"), "expired on .* renew it"),
        (write_certificate(tmp_path, days=(2, 9), name="young"), "is valid from .* check the clock"),
        (write_certificate(tmp_path, passphrase=b"x", name="locked"), "has a passphrase"),
    ):
        with pytest.raises(InvalidInputError, match=complaint):
            server.create_app(small_config(tmp_path, server=files))
