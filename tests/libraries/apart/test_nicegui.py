"""NiceGUI keeps a page alive in a socket: nobody has one without a session, nor keeps it after."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from tests.support.libraries import need
from tests.support.pages import Reader, blocks
from tests.support.repository import DOCS

need("nicegui", apart=True)

SOCKET = "wss://test/_nicegui_ws/socket.io/?EIO=4&transport="


def connect(client: TestClient, **headers: str) -> Any:
    return client.websocket_connect(
        f"{SOCKET}websocket", headers={"upgrade": "websocket", **headers}
    )


def polled(client: TestClient) -> int:
    """The other way to that socket."""
    return client.get(SOCKET.replace("wss", "https") + "polling").status_code


@pytest.mark.parametrize("page", [DOCS / "libraries.md"])
async def test_a_socket_lives_as_long_as_its_session(reader: Reader) -> None:
    beginning, *_ = blocks(reader.page, "python")
    (own,) = [block for block in blocks(reader.page, "py") if "import ui" in block.source]
    await reader.run(beginning, own)
    with TestClient(reader["app"], base_url="https://test") as client:
        with pytest.raises(WebSocketDisconnect), connect(client):
            pass
        assert polled(client) == 401
        client.post("/login")
        with pytest.raises(WebSocketDisconnect), connect(client, origin="https://evil.example"):
            pass
        assert polled(client) == 200
        with connect(client) as socket:
            assert socket.receive_text().startswith('0{"sid":')
            assert client.portal is not None
            client.portal.call(reader["sessions"].end_all_sessions, "ada")
            assert socket.receive() == {
                "type": "websocket.close",
                "code": 1008,
                "reason": "session ended",
            }
        assert polled(client) == 401
        with pytest.raises(WebSocketDisconnect), connect(client):
            pass
