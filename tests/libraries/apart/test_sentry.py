"""Sentry sends the variables of all frames away, and the cookies if it may: none of ours goes
along, with the function of docs/logging.md. It changes Starlette, asyncio and more for its whole
process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from asgi_sessions import SessionMiddleware
from tests.support import KEY, Browser, set_cookies
from tests.support.libraries import need
from tests.support.pages import Reader
from tests.support.repository import DOCS

need("sentry_sdk", apart=True)

Start = Callable[..., list[Any]]
#: The two ways to have it send all that it finds; the first is that of old releases.
CURIOUS: list[dict[str, Any]] = [
    {"send_default_pii": True, "max_request_body_size": "always"},
    {"data_collection": {}},
]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts Sentry; the list of what it sends from then on."""
    import sentry_sdk
    from sentry_sdk.transport import Transport

    def start(**options: Any) -> list[Any]:
        sent: list[Any] = []

        class Local(Transport):
            def capture_envelope(self, envelope: Any) -> None:
                sent.extend(json.loads(item.payload.get_bytes()) for item in envelope.items)

        sentry_sdk.init(
            dsn="https://key@sentry.example/1",
            transport=Local,
            include_local_variables=True,
            traces_sample_rate=1.0,
            auto_session_tracking=False,
            **options,
        )
        return sent

    yield start
    sentry_sdk.get_client().close()
    sentry_sdk.init()  # sends nothing any more


@pytest.mark.filterwarnings("ignore:The send_default_pii option is deprecated")
@pytest.mark.parametrize("options", CURIOUS, ids=["send_default_pii", "data_collection"])
@pytest.mark.parametrize("page", [DOCS / "logging.md"])
async def test_no_secret_goes_away_with_an_error(
    reader: Reader, start: Start, options: dict[str, Any]
) -> None:
    await reader.run()
    sessions, without_cookies = reader["sessions"], reader["without_cookies"]
    await sessions.create_tables()

    async def login(request: Request) -> Response:
        await sessions.start_session(request, {"id": "ada"})
        return Response()

    async def fail(request: Request) -> Response:
        mine = [f"{name}={value}" for name, value in request.cookies.items()]
        await sessions.renew_session(request)
        raise RuntimeError(len(mine))

    async def sent_secrets(**functions: Any) -> tuple[set[str], int]:
        """The secrets in what is sent of a login and an error, and how much that is."""
        sent = start(**options, **functions)
        app = Starlette(routes=[Route("/login", login), Route("/fail", fail)])
        app.add_middleware(SessionMiddleware, sessions=sessions)
        browser = Browser(app)
        (cookie,) = set_cookies(await browser.get("/login"))
        with pytest.raises(RuntimeError):
            await browser.get("/fail")
        _, secret, rest = cookie.split(".")
        text = json.dumps(sent)
        kinds = {name for name in (secret, rest.partition(";")[0], KEY) if name in text}
        return kinds, sum("exception" in one for one in sent)

    leaked, errors = await sent_secrets()
    assert len(leaked) == 2  # the secret and its signature, or the test would show nothing
    assert errors == 1
    mended = {"before_send": without_cookies, "before_send_transaction": without_cookies}
    assert await sent_secrets(**mended) == (set(), 1)
