"""Bearer tokens, for clients without a cookie jar: the same row, checks, list, end and renewal as
with the cookie, and no cookie at all.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from asgi_sessions import (
    ConfigurationError,
    CrossOriginProtection,
    InvalidSession,
    IssuedToken,
    Lifetimes,
    SessionData,
    SessionMiddleware,
    Sessions,
    SessionsUnavailable,
    StarletteCookie,
)
from tests.conftest import MakeSessions
from tests.support import (
    KEY,
    Browser,
    Clock,
    cookie_of,
    make_app,
    set_cookies,
    vouched,
)
from tests.support.asgi import ENDED, Peer, echo, field, reasons, websocket
from tests.support.data import data_of
from tests.support.engines import run
from tests.support.inside import check_what_is_open

GRACE = timedelta(seconds=60)
SECOND = timedelta(seconds=1)
JUNK = f"asgis_019b796d-d600-7000-b4b9-f15a80fbe32e.{'s' * 43}.{'t' * 43}"


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


class Client(Browser):
    """A native client: it has no cookie jar, and sends a token."""

    def __init__(self, sessions: Sessions, *extra: Route | Mount, agent: str = "Phone/1") -> None:
        async def issue(request: Request) -> Response:
            issued = await sessions.start_token(request, {"id": request.query_params["person"]})
            return JSONResponse(
                {"token": issued.token, "sid": issued.session.sid, "now": request.state.sid},
                int(request.query_params.get("status", "200")),
                headers={"Cache-Control": "public", "Expires": "0"},
            )

        async def renew(request: Request) -> Response:
            issued = await sessions.renew_token(request, acr="high", amr=["otp"])
            return JSONResponse(None if issued is None else issued.token)

        routes = [
            Route("/token", issue, methods=["POST"]),
            Route("/renew-token", renew, methods=["POST"]),
            Mount("/sessions", sessions.routes()),
        ]
        super().__init__(make_app(sessions, *routes, *extra), agent=agent)
        self.token = ""

    async def send(self, *args: Any, **kwargs: Any) -> httpx.Response:
        response = await super().send(*args, **kwargs)
        assert "set-cookie" not in response.headers
        return response

    async def start(self, person: str) -> str:
        """Get a token; the sid."""
        response = await self.post(f"/token?person={person}")
        assert response.status_code == 200, response.text
        self.token = response.json()["token"]
        self.headers.update(bearer(self.token))
        sid: str = response.json()["sid"]
        return sid


@pytest.fixture
async def sessions(make_sessions: MakeSessions) -> Sessions:
    """With tokens, on every database."""
    return await make_sessions(bearer=True)


@pytest.fixture
async def plain(plain: Sessions, clock: Clock) -> Any:
    """With tokens, on SQLite alone."""
    options: dict[str, Any] = {"secret_key": KEY, "clock": clock, "bearer": True, "data": True}
    async with Sessions(str(plain.database.url), **options) as made:
        await made.create_tables()
        yield made


# --- a life --------------------------------------------------------------------------------------


async def test_a_token_is_started_used_listed_and_ended_like_a_cookie(sessions: Sessions) -> None:
    phone = Client(sessions)
    answer = await phone.post("/token?person=ada")
    token, sid = answer.json()["token"], answer.json()["sid"]
    assert token.startswith(f"asgis_{sid}.")
    assert answer.json()["now"] is None  # the request that asked for it has no session
    assert answer.headers["cache-control"] == "no-store"
    assert "expires" not in answer.headers
    phone.headers.update(bearer(token))
    seen = await phone.see()
    assert (seen["sid"], seen["person_id"]) == (sid, "ada")
    assert (await sessions.list_sessions("ada"))[0].bearer
    (listed,) = (await phone.get("/sessions/")).json()["sessions"]
    assert (listed["sid"], listed["bearer"], listed["current"]) == (sid, True, True)
    # It holds at the very next request.
    await sessions.end_session_by_id(sid, person_id="ada")
    assert (await phone.see())["reason"] == "revoked"


async def test_the_row_keeps_a_digest_and_neither_the_token_nor_a_log_shows_it(
    sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "asgi_sessions")
    phone = Client(sessions)
    await phone.start("ada")
    secret = phone.token.split(".")[1]
    (row,) = await run(sessions, select(sessions.table))
    assert row["bearer"]
    assert secret not in repr(row)
    ours = [one.getMessage() for one in caplog.records if one.name.startswith("asgi_sessions")]
    assert ours
    assert secret not in "".join(ours)


async def test_the_repr_of_a_token_hides_it(plain: Sessions) -> None:
    issued = await token_of(plain)
    assert issued.session.sid in repr(issued)
    assert issued.token.split(".")[1] not in repr(issued)


async def test_a_logout_by_token_ends_it_and_clears_no_cookie(sessions: Sessions) -> None:
    phone = Client(sessions)
    await phone.start("ada")
    assert (await phone.post("/logout")).json()["sid"] is None
    assert await reasons(sessions, "ada") == ["logout"]


async def test_a_renewal_of_a_token_is_dated_by_whoever_saw_the_proof(
    plain: Sessions, clock: Clock
) -> None:
    async def proved(request: Request) -> Response:
        at = clock.now - timedelta(minutes=1)
        await plain.renew_token(request, authenticated_at=at)
        return Response(status_code=204)

    phone = Client(plain, Route("/proved", proved, methods=["POST"]))
    await phone.start("ada")
    clock.turn(timedelta(hours=1))
    await phone.post("/proved")
    (session,) = await plain.list_sessions("ada")
    assert session.authenticated_at == clock.now - timedelta(minutes=1)


async def test_a_token_has_lifetimes_of_its_own(sessions: Sessions, clock: Clock) -> None:
    year = Lifetimes(idle=timedelta(days=60), absolute=timedelta(days=365))

    async def issue(request: Request) -> Response:
        issued = await sessions.start_token(request, {"id": "ada"}, lifetimes=year)
        return JSONResponse({"token": issued.token})

    phone = Client(sessions, Route("/year", issue, methods=["POST"]))
    phone.headers.update(bearer((await phone.post("/year")).json()["token"]))
    session = None
    for _ in range(6):  # far beyond those of `Sessions`: 30 days, 14 days idle
        clock.turn(timedelta(days=60) - SECOND)
        (session,) = await sessions.list_sessions("ada")
        assert session.idle_expires_at == clock.now + SECOND
        assert (await phone.see())["person_id"] == "ada"
    assert session is not None
    assert session.expires_at - session.started_at == year.absolute
    clock.turn(timedelta(days=6))
    assert (await phone.see())["reason"] == "expired"
    assert await sessions.list_sessions("ada") == []
    await phone.post("/year")
    clock.turn(year.idle)
    assert await sessions.list_sessions("ada") == []
    assert await sessions.end_all_sessions("ada") == 0  # it had idled out


async def test_a_token_in_use_never_looks_idle_however_short_its_own_timeout(
    plain: Sessions, clock: Clock
) -> None:
    short = Lifetimes(idle=timedelta(seconds=40), absolute=timedelta(days=1))
    issued = await plain.start_token(await scope_of(plain), {"id": "ada"}, lifetimes=short)
    phone = Client(plain)
    phone.headers.update(bearer(issued.token))
    for _ in range(4):  # uses are noted once a minute otherwise
        clock.turn(timedelta(seconds=25))
        assert (await phone.see())["person_id"] == "ada"
    clock.turn(short.idle)
    assert (await phone.see())["reason"] == "expired"


async def test_lifetimes_that_are_none_are_refused(plain: Sessions) -> None:
    scope = await scope_of(plain)
    with pytest.raises(ConfigurationError, match=r"lifetimes=3600: use Lifetimes"):
        await plain.start_token(scope, {"id": "ada"}, lifetimes=3600)  # type: ignore[arg-type]
    with pytest.raises(InvalidSession):
        await plain.start_token(scope, {"id": "a\0"})


async def test_half_a_second_of_idleness_is_kept_as_one(plain: Sessions, clock: Clock) -> None:
    half = Lifetimes(idle=timedelta(seconds=0.5), absolute=timedelta(days=1))
    issued = await plain.start_token(await scope_of(plain), {"id": "ada"}, lifetimes=half)
    assert issued.session.idle_expires_at == clock.now + SECOND


# --- renewal -------------------------------------------------------------------------------------


async def test_a_renewal_gives_a_new_token_and_the_old_one_is_a_theft_after_its_grace(
    sessions: Sessions, clock: Clock
) -> None:
    phone = Client(sessions)
    sid = await phone.start("ada")
    thief = Client(sessions, agent="curl")
    thief.headers.update(bearer(phone.token))
    answer = await phone.post("/renew-token")
    assert answer.headers["cache-control"] == "no-store"
    phone.headers.update(bearer(answer.json()))
    assert (await thief.see())["sid"] == sid  # a bridge, for requests that were under way
    assert (await thief.post("/renew-token")).json() is None
    assert (await phone.see())["sid"] == sid
    session = (await sessions.list_sessions("ada"))[0]
    assert (session.acr, session.amr) == ("high", ("otp",))
    clock.turn(GRACE + SECOND)
    assert (await thief.see())["reason"] == "reuse"
    assert (await phone.see())["reason"] == "reuse"
    assert await reasons(sessions, "ada") == ["reuse"]


async def test_renewals_do_not_mix_token_and_cookie(plain: Sessions) -> None:
    phone = Client(plain)
    await phone.start("ada")
    with pytest.raises(ConfigurationError, match="sends a token"):
        await phone.post("/renew")
    browser = Browser(phone._transport.app)  # type: ignore[attr-defined]
    await browser.login("ada")
    with pytest.raises(ConfigurationError, match="has a cookie, and no token"):
        await browser.post("/renew-token")
    assert (await Client(plain).post("/renew-token")).json() is None


# --- delivery ------------------------------------------------------------------------------------


async def test_a_token_whose_answer_fails_is_ended(sessions: Sessions) -> None:
    async def crash(request: Request) -> Response:
        await sessions.start_token(request, {"id": "ada"})
        await sessions.start_token(request, {"id": "ada"})
        raise OSError

    phone = Client(sessions, Route("/crash", crash))
    await phone.post("/token?person=ada&status=500")
    await phone.post("/token?person=ada&status=404")  # the app's word
    with pytest.raises(OSError, match=r"^$"):
        await phone.get("/crash")
    assert await reasons(sessions, "ada") == [None, *["not_delivered"] * 3]


async def test_an_outage_while_a_token_is_taken_back_is_told(
    plain: Sessions, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = Client(plain)

    async def fails(*_: object, **__: object) -> Any:
        raise SessionsUnavailable("gone")

    monkeypatch.setattr(
        plain._core.store, "end", fails
    )  # there is no outage between two statements
    await phone.post("/token?person=ada&status=500")
    assert "was not delivered and could not be ended: gone" in caplog.text


# --- beside the cookie ---------------------------------------------------------------------------


async def test_a_request_with_a_token_ignores_the_cookie(sessions: Sessions) -> None:
    phone = Client(sessions)
    phone_sid = await phone.start("ada")
    browser = Browser(phone._transport.app)  # type: ignore[attr-defined]
    browser_sid = await browser.login("bob")
    assert (await browser.see())["sid"] == browser_sid
    assert (await browser.see(**bearer(phone.token)))["sid"] == phone_sid
    for junk in (JUNK, "asgis_", "asgis_x", f"{phone.token}x"):
        seen = await browser.see(**bearer(junk))
        assert (seen["sid"], seen["reason"]) == (None, None)
    await sessions.end_session_by_id(phone_sid)
    assert (await browser.see(**bearer(phone.token)))["reason"] == "revoked"
    # Neither has ended, or cleared, the other.
    assert (await browser.see())["sid"] == browser_sid


async def test_two_tokens_in_one_request_are_none(plain: Sessions) -> None:
    phone = Client(plain)
    await phone.start("ada")
    other = Client(plain)
    await other.start("ada")
    both = [("authorization", f"Bearer {one.token}") for one in (phone, other)]
    assert (await Client(plain).get("/", headers=both)).json()["sid"] is None
    twice = [both[0], both[0]]
    assert (await Client(plain).get("/", headers=twice)).json()["person_id"] == "ada"


async def test_a_foreign_bearer_token_is_left_to_its_layer(plain: Sessions) -> None:
    browser = Browser(make_app(plain))
    sid = await browser.login("ada")
    for other in (
        "Bearer eyJhbGciOiJub25lIn0.e30.",
        "Basic YTpi",
        "asgis_x",
        "bearer",
        "Bearer ASGIS_x",
    ):
        assert (await browser.see(authorization=other))["sid"] == sid


async def test_the_scheme_has_no_case_and_the_prefix_has(plain: Sessions) -> None:
    phone = Client(plain)
    sid = await phone.start("ada")
    for line in (f"bearer {phone.token}", f"BEARER   {phone.token} "):
        assert (await Client(plain).see(authorization=line))["sid"] == sid
    assert (await Client(plain).see(authorization=f"Token {phone.token}"))["sid"] is None


async def test_without_the_option_a_token_is_nothing(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    phone = Client(await make_sessions(bearer=True))
    await phone.start("ada")
    without = await make_sessions()
    browser = Browser(make_app(without))
    sid = await browser.login("ada")
    assert (await browser.see(**bearer(phone.token)))["sid"] == sid
    for call in (without.start_token(None, {"id": "ada"}), without.renew_token(None)):  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=r"needs Sessions\(bearer=True\)"):
            await call


async def test_token_and_cookie_are_not_taken_for_one_another(plain: Sessions) -> None:
    phone = Client(plain)
    await phone.start("ada")
    browser = Browser(phone._transport.app)  # type: ignore[attr-defined]
    await browser.login("ada")
    cookie = cookie_of(browser, plain)
    assert (await Client(plain).see(**bearer(f"asgis_{cookie}")))["sid"] is None
    for value in (phone.token, phone.token.removeprefix("asgis_")):
        header = f"{plain.cookie_name}={value}"
        assert (await Client(plain).see(cookie=header))["sid"] is None


async def test_tokens_of_another_app_or_key_are_nothing(make_sessions: MakeSessions) -> None:
    phone = Client(await make_sessions(bearer=True, app_id="shop"))
    await phone.start("ada")
    for options in ({"app_id": "staff"}, {"app_id": "shop", "secret_key": KEY[::-1]}):
        other = Client(await make_sessions(bearer=True, **options))
        assert (await other.see(**bearer(phone.token)))["sid"] is None
    newer = await make_sessions(
        bearer=True, app_id="shop", secret_key=KEY[::-1], old_secret_keys=[KEY]
    )
    assert (await Client(newer).see(**bearer(phone.token)))["person_id"] == "ada"


async def test_every_changed_character_is_noticed(plain: Sessions) -> None:
    phone = Client(plain)
    await phone.start("ada")
    client = Client(plain)
    for place in range(len("asgis_"), len(phone.token)):
        changed = "A" if phone.token[place] != "A" else "B"
        token = phone.token[:place] + changed + phone.token[place + 1 :]
        assert (await client.see(**bearer(token)))["sid"] is None
    assert (await phone.see())["person_id"] == "ada"


async def test_a_login_beside_a_token_replaces_nothing(sessions: Sessions) -> None:
    phone = Client(sessions)
    sid = await phone.start("ada")
    web_view = Browser(phone._transport.app)  # type: ignore[attr-defined]
    answer = await web_view.post("/login?person=ada", headers=bearer(phone.token))
    assert len(set_cookies(answer)) == 1
    assert (await web_view.see())["sid"] == answer.json()["sid"] != sid
    assert (await phone.see())["sid"] == sid
    # Nor does a token end the login of the browser that has asked for it.
    await web_view.post("/token?person=ada")
    assert await reasons(sessions, "ada") == [None, None, None]


async def test_tokens_count_for_the_cap_of_logins(make_sessions: MakeSessions) -> None:
    capped = await make_sessions(bearer=True, max_sessions_per_person=1)
    phone = Client(capped)
    await phone.start("ada")
    await Client(capped).start("ada")
    assert (await phone.see())["reason"] == "limit"


async def test_somebody_else_in_the_scope_ends_the_session_of_a_token_and_sets_no_cookie(
    sessions: Sessions,
) -> None:
    phone = Client(sessions)
    await phone.start("ada")
    assert (await phone.see_as("bob"))["person_id"] == "bob"
    assert await reasons(sessions, "ada") == ["person_changed"]
    # A junk token beside a person: found by the device, as a client without a cookie.
    assert (await phone.see(**bearer(JUNK), **vouched("bob")))["person_id"] == "bob"
    assert await reasons(sessions, "bob") == [None]


# --- what answers say ----------------------------------------------------------------------------


async def test_answers_vary_by_both_where_tokens_are_taken(plain: Sessions) -> None:
    async def varied(request: Request) -> Response:
        return Response(headers={"Vary": request.query_params["vary"]})

    phone = Client(plain, Route("/varied", varied))
    assert (await phone.get("/")).headers["vary"] == "Cookie, Authorization"
    for set_by_app, sent in {
        "Accept": "Accept, Cookie, Authorization",
        "authorization": "authorization, Cookie",
        "cookie, AUTHORIZATION": "cookie, AUTHORIZATION",
        "*": "*",
    }.items():
        answer = await phone.get("/varied", params={"vary": set_by_app})
        assert answer.headers["vary"] == sent
    await phone.start("ada")
    assert (await phone.get("/")).headers["cache-control"] == "private"


async def test_a_forged_token_is_reported_like_a_forged_cookie(
    plain: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    await Client(plain).see(**bearer(JUNK))
    await Client(plain).see(**bearer("asgis_something else"))
    (record,) = [one for one in caplog.records if "invalid signature" in one.getMessage()]
    assert JUNK not in record.getMessage()


# --- other sites ---------------------------------------------------------------------------------


async def test_a_token_needs_no_protection_against_other_sites(plain: Sessions) -> None:
    phone = Client(plain)
    hostile = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    sid = await phone.start("ada")
    other = await Client(plain).start("ada")
    assert (await phone.post("/end-session", headers=hostile)).status_code == 200
    assert (await plain.get_by_id(sid)).end_reason == "logout"  # type: ignore[union-attr]
    await phone.start("ada")
    assert (await phone.delete(f"/sessions/{other}", headers=hostile)).status_code == 204
    browser = Browser(phone._transport.app)  # type: ignore[attr-defined]
    await browser.login("ada")
    assert (await browser.post("/end-session", headers=hostile)).status_code == 403
    assert (await browser.delete(f"/sessions/{other}", headers=hostile)).status_code == 403


async def test_cross_origin_protection_lets_the_header_pass_and_not_the_subprotocol(
    plain: Sessions,
) -> None:
    app = make_app(plain)
    app.add_middleware(CrossOriginProtection)
    hostile = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    client = Browser(app)
    assert (await client.post("/logout", headers=hostile)).status_code == 403
    assert (await client.post("/logout", headers={**hostile, **bearer(JUNK)})).status_code == 200
    foreign = {**hostile, **bearer("eyJ.e30.")}
    assert (await client.post("/logout", headers=foreign)).status_code == 403
    scope = websocket(
        origin="https://evil.example", host="test", subprotocols=["asgi-sessions", JUNK]
    )
    async with Peer(CrossOriginProtection(echo), scope) as peer:
        assert (await peer.gets())["type"] == "websocket.close"


# --- WebSockets ----------------------------------------------------------------------------------


async def token_of(sessions: Sessions, person: str = "ada") -> IssuedToken:
    return await sessions.start_token(await scope_of(sessions), {"id": person})


async def scope_of(sessions: Sessions) -> Scope:
    """The scope of a request, as a handler gets it."""
    scope: Scope = {"type": "http", "method": "POST", "headers": [], "path": "/"}

    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    async def nothing(*_: Any) -> Any: ...

    await SessionMiddleware(app, sessions=sessions)(scope, nothing, nothing)
    return scope


@pytest.mark.parametrize("by", ["header", "subprotocol"])
async def test_a_websocket_comes_with_a_token_and_closes_with_its_session(
    plain: Sessions, by: str
) -> None:
    issued = await token_of(plain)
    offered: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        offered.append(scope["subprotocols"])
        await echo(scope, receive, send)

    # A browser's page on another origin, which has the token in its memory.
    sent: dict[str, Any] = {
        "header": {"subprotocols": ["chat"], **bearer(issued.token)},
        "subprotocol": {"subprotocols": ["asgi-sessions", issued.token, "chat"]},
    }
    scope = websocket(origin="https://elsewhere.example", host="test", **sent[by])
    async with Peer(SessionMiddleware(app, sessions=plain), scope) as peer:
        accept = await peer.gets()
        assert accept.get("subprotocol") == (None if by == "header" else "asgi-sessions")
        assert field(accept, "set-cookie") == []
        assert (await peer.gets())["text"] == issued.session.sid
        assert offered == [["chat"]]  # so that no app can choose, and so send back, the token
        await plain.end_session_by_id(issued.session.sid)
        assert await peer.gets() == ENDED


async def test_the_subprotocol_that_the_app_chooses_is_kept(plain: Sessions) -> None:
    issued = await token_of(plain)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "chat"})

    scope = websocket(subprotocols=["asgi-sessions", issued.token, "chat"])
    async with Peer(SessionMiddleware(app, sessions=plain), scope) as peer:
        assert (await peer.gets())["subprotocol"] == "chat"


async def test_a_renewal_closes_what_was_opened_with_the_old_token(plain: Sessions) -> None:
    phone = Client(plain)
    await phone.start("ada")
    scope = websocket(authorization=f"Bearer {phone.token}")
    async with Peer(SessionMiddleware(echo, sessions=plain), scope) as peer:
        assert (await peer.gets())["type"] == "websocket.accept"
        await peer.gets()
        await phone.post("/renew-token")
        assert await peer.gets() == ENDED


async def test_a_websocket_may_renew_its_token_before_it_is_accepted(plain: Sessions) -> None:
    phone = Client(plain)
    sid = await phone.start("ada")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        issued = await plain.renew_token(scope)
        assert issued is not None
        scope["headers"].append((b"x-token", issued.token.encode()))
        await echo(scope, receive, send)

    scope = websocket(authorization=f"Bearer {phone.token}")
    async with Peer(SessionMiddleware(app, sessions=plain), scope) as peer:
        assert (await peer.gets())["type"] == "websocket.accept"
        assert (await peer.gets())["text"] == sid
        await check_what_is_open(plain)
        peer.says({"type": "websocket.receive", "text": "still here"})
        assert (await peer.gets())["text"] == "still here"
        phone.headers.update(bearer(scope["headers"][-1][1].decode()))
        await phone.post("/renew-token")  # but the next one closes it
        assert await peer.gets() == ENDED


async def test_other_sessions_in_front_leave_a_subprotocol_to_whom_it_is_for(
    plain: Sessions, clock: Clock, tmp_path: Any
) -> None:
    options: dict[str, Any] = {"secret_key": KEY[::-1], "clock": clock, "cookie_name": "other"}
    async with Sessions(f"sqlite:///{tmp_path}/other.db", bearer=True, **options) as other:
        issued = await token_of(plain)
        offered = ["asgi-sessions", issued.token]
        app = SessionMiddleware(SessionMiddleware(echo, sessions=plain), sessions=other)
        scope = websocket(subprotocols=offered)
        # Servers make the one of the other.
        scope["headers"].append((b"sec-websocket-protocol", ", ".join(offered).encode()))
        async with Peer(app, scope) as peer:
            assert (await peer.gets())["subprotocol"] == "asgi-sessions"
            assert (await peer.gets())["text"] == issued.session.sid
            peer.says({"type": "websocket.disconnect", "code": 1000})
        assert scope["subprotocols"] == []


async def test_a_denial_names_no_subprotocol(plain: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b""})

    scope = websocket(denial=True, subprotocols=["asgi-sessions", (await token_of(plain)).token])
    async with Peer(SessionMiddleware(app, sessions=plain), scope) as peer:
        assert "subprotocol" not in await peer.gets()
        await peer.gets()


# --- data, and transactions of the app -----------------------------------------------------------


async def test_a_token_has_data_and_a_junk_one_makes_no_visitor(plain: Sessions) -> None:
    async def count(request: Request) -> Response:
        request.session["n"] = request.session.get("n", 0) + 1
        await request.session.regenerate_id()  # type: ignore[attr-defined]
        return JSONResponse(request.session["n"])

    phone = Client(plain, Route("/count", count))
    await phone.start("ada")
    assert [(await phone.get("/count")).json() for _ in range(2)] == [1, 2]
    stranger = Client(plain, Route("/count", count))
    stranger.headers.update(bearer(JUNK))
    assert [(await stranger.get("/count")).json() for _ in range(2)] == [1, 1]
    assert await data_of(plain, "visitors") == {}


async def test_a_login_beside_a_token_leaves_its_data_alone(plain: Sessions) -> None:
    async def put(request: Request) -> Response:
        request.session["of"] = "the phone"
        return Response()

    async def enter(request: Request) -> Response:
        await plain.start_session(request, {"id": "ada"})
        return JSONResponse(dict(request.session))

    phone = Client(plain, Route("/put", put), Route("/enter", enter))
    sid = await phone.start("ada")
    await phone.get("/put")
    web_view = Browser(phone._transport.app)  # type: ignore[attr-defined]
    assert (await web_view.get("/enter", headers=bearer(phone.token))).json() == {}
    assert (await data_of(plain))[sid] == {"of": "the phone"}


async def test_starlettes_cookie_counts_for_nothing_beside_a_token(
    plain: Sessions, clock: Clock
) -> None:
    taking = Sessions(
        str(plain.database.url),
        secret_key=KEY,
        clock=clock,
        bearer=True,
        data=SessionData(starlette_cookie=StarletteCookie("a key of Starlette's " * 2)),
    )
    async with taking:
        phone = Client(taking)
        await phone.start("ada")
        assert (await phone.see(cookie="session=e30=.x.y"))["person_id"] == "ada"


# --- configuration -------------------------------------------------------------------------------


async def test_a_token_cannot_be_had_once_the_response_has_begun(plain: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with pytest.raises(ConfigurationError, match="the response has begun"):
            await plain.start_token(scope, {"id": "ada"})
        await send({"type": "http.response.body"})

    assert (await Browser(SessionMiddleware(app, sessions=plain)).get("/")).status_code == 200


def test_the_option_is_true_or_false(tmp_path: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"bearer='yes': use True or False"):
        Sessions(f"sqlite:///{tmp_path}/s.db", secret_key=KEY, bearer="yes")  # type: ignore[arg-type]
