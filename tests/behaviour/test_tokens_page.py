"""What docs/tokens.md says, done by a native client over real sockets."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest
import websockets

from asgi_sessions import Sessions
from tests.support.asgi import until
from tests.support.inside import open_sids
from tests.support.pages import Reader
from tests.support.repository import DOCS
from tests.support.serving import served

pytestmark = pytest.mark.parametrize("page", [DOCS / "tokens.md"])


async def log_in(client: httpx.AsyncClient) -> dict[str, str]:
    token = (await client.post("/login")).json()["token"]
    (pattern,) = re.findall(r"secrets: `(.+)`\.", (DOCS / "tokens.md").read_text())
    assert re.fullmatch(pattern, token)
    return {"Authorization": f"Bearer {token}"}


async def test_a_native_client_logs_in_looks_around_renews_and_leaves(reader: Reader) -> None:
    await reader.run()
    await reader["sessions"].create_tables()
    async with (
        served(reader["app"]) as host,
        httpx.AsyncClient(base_url=f"http://{host}") as client,
    ):
        headers = await log_in(client)
        assert (await client.get("/me", headers=headers)).json()["person"] == "ada"
        assert (await client.get("/me")).json() is None
        renewed = (await client.post("/renew", headers=headers)).json()["token"]
        headers = {"Authorization": f"Bearer {renewed}"}
        (listed,) = (await client.get("/sessions/", headers=headers)).json()["sessions"]
        assert listed["bearer"]
        assert (await client.post("/logout", headers=headers)).status_code == 200
        assert (await client.get("/me", headers=headers)).json() is None


async def test_socket_io_is_told_of_the_end(reader: Reader) -> None:
    await reader.run()
    sessions: Sessions = reader["sessions"]
    await sessions.create_tables()
    async with (
        served(reader["both"]) as host,
        httpx.AsyncClient(base_url=f"http://{host}") as client,
    ):
        headers = await log_in(client)
        url = f"ws://{host}/socket.io/?EIO=4&transport=websocket"
        for sent, answer in ((None, '44{"message":"log in first"}'), (headers, "40{")):
            async with websockets.connect(url, additional_headers=sent) as socket:
                assert str(await socket.recv()).startswith("0{")  # Engine.IO has opened
                await socket.send("40")
                assert str(await socket.recv()).startswith(answer)
                if sent is not None:
                    await client.post("/logout", headers=headers)
                    assert await socket.recv() == "41"  # Socket.IO's disconnect
        await until(lambda: not open_sids(sessions))


async def test_a_server_of_ones_own_closes_the_connection(reader: Reader) -> None:
    await reader.run()
    sessions: Sessions = reader["sessions"]
    await sessions.create_tables()
    async with (
        served(reader["app"]) as host,
        httpx.AsyncClient(base_url=f"http://{host}") as client,
        await reader["listen"]() as server,
    ):
        headers = await log_in(client)
        token = headers["Authorization"].removeprefix("Bearer ").encode()
        port = server.sockets[0].getsockname()[1]
        for line, answer in ((b"asgis_junk", b""), (token, b"ada says hello\n")):
            reading, writing = await asyncio.open_connection("127.0.0.1", port)
            writing.write(line + b"\nhello\n")
            assert await reading.readline() == answer
            if answer:
                await sessions.end_all_sessions("ada")
                assert await reading.readline() == b""
            writing.close()
