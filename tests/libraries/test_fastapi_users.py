"""fastapi-users logs its users in by our sessions.

An app on SQLAlchemy, as its documentation has them, is run in `apart/test_fastapi_users.py`.
"""

# FastAPI reads the annotations of functions that stand in a function.
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Annotated, Any
from uuid import uuid4

import pytest
from fastapi import Depends, FastAPI, Request

from asgi_sessions import ConfigurationError, SessionMiddleware, Sessions
from tests.support import KEY, Browser, Clock, entered, set_cookies
from tests.support.libraries import need

need("fastapi_users")

from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin  # noqa: E402
from fastapi_users.authentication import (  # noqa: E402
    AuthenticationBackend,
    BearerTransport,
    CookieTransport,
)
from fastapi_users.db import BaseUserDatabase  # noqa: E402
from fastapi_users.password import PasswordHelper  # noqa: E402
from fastapi_users.schemas import BaseUser, BaseUserUpdate  # noqa: E402
from pwdlib import PasswordHash  # noqa: E402
from pwdlib.hashers.argon2 import Argon2Hasher  # noqa: E402

from asgi_sessions.fastapi_users import SessionsOfUsers, session_strategy  # noqa: E402

ADA = {"username": "ada@example.com", "password": "analytical"}


class Users(BaseUserDatabase[Any, Any]):
    """Their table, in memory."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    async def get(self, user_id: Any) -> Any:
        return next((one for one in self.rows if one.id == user_id), None)

    async def get_by_email(self, email: str) -> Any:
        return next((one for one in self.rows if one.email == email), None)

    async def create(self, values: dict[str, Any]) -> Any:
        flags = {"is_active": True, "is_superuser": False, "is_verified": True}
        self.rows.append(SimpleNamespace(id=uuid4(), **flags, **values))
        return self.rows[-1]

    async def update(self, user: Any, values: dict[str, Any]) -> Any:
        vars(user).update(values)
        return user

    async def delete(self, user: Any) -> None:
        self.rows.remove(user)


class World:
    """An app of theirs whose backends are both ours: tokens, and the cookie."""

    def __init__(self, sessions: Sessions) -> None:
        class UserManager(
            SessionsOfUsers, UUIDIDMixin, BaseUserManager[Any, Any], sessions=sessions
        ):
            reset_password_token_secret = KEY

            async def on_after_forgot_password(
                self, user: Any, token: str, request: Request | None = None
            ) -> None:
                sent.append(token)

        def get_manager() -> UserManager:
            return UserManager(users, quick)

        sent = self.sent = list[str]()
        users = self.users = Users()
        # Its own hashes take their time, which is their sense.
        quick = PasswordHelper(
            PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))
        )
        self.manager = get_manager()
        tokens = AuthenticationBackend(
            name="token",
            transport=BearerTransport(tokenUrl="token/login"),
            get_strategy=session_strategy(sessions),
        )
        cookies = AuthenticationBackend(
            name="cookie",
            transport=CookieTransport(cookie_name=sessions.cookie_name),
            get_strategy=session_strategy(sessions, cookie=True),
        )
        theirs = FastAPIUsers[Any, Any](get_manager, [tokens, cookies])
        app = self.app = FastAPI()
        app.add_middleware(SessionMiddleware, sessions=sessions)
        app.include_router(theirs.get_auth_router(tokens), prefix="/token")
        app.include_router(theirs.get_auth_router(cookies), prefix="/cookie")
        app.include_router(theirs.get_users_router(BaseUser[Any], BaseUserUpdate), prefix="/users")
        app.include_router(theirs.get_reset_password_router(), prefix="/password")

        @app.get("/me")
        async def me(user: Annotated[Any, Depends(theirs.current_user(active=True))]) -> str:
            return str(user.email)

    async def register(self, email: str = ADA["username"]) -> Any:
        hashed = self.manager.password_helper.hash(ADA["password"])
        return await self.users.create({"email": email, "hashed_password": hashed})

    async def log_in(self, *, cookie: bool = False) -> Browser:
        """A device on which ada is logged in."""
        browser = Browser(self.app)
        answer = await browser.post("/cookie/login" if cookie else "/token/login", data=ADA)
        assert answer.status_code in (200, 204), answer.text
        if not cookie:
            assert answer.headers["cache-control"] == "no-store"
            browser.headers["authorization"] = f"Bearer {answer.json()['access_token']}"
        return browser


@pytest.fixture
async def sessions(anyio_backend: str, tmp_path: Any, clock: Clock) -> AsyncIterator[Sessions]:
    url = f"sqlite:///{tmp_path}/s.db"
    async with Sessions(url, secret_key=KEY, clock=clock, bearer=True) as sessions:
        await sessions.create_tables()
        yield sessions


@pytest.fixture
def world(sessions: Sessions) -> World:
    return World(sessions)


async def seen(*browsers: Browser) -> list[int]:
    return [(await one.get("/me")).status_code for one in browsers]


async def test_a_login_by_token_is_a_session_and_a_logout_ends_it(
    world: World, sessions: Sessions
) -> None:
    user = await world.register()
    phone = await world.log_in()
    (session,) = await sessions.list_sessions(user.id)
    assert session.bearer
    assert not phone.cookies
    assert (await phone.get("/me")).json() == user.email
    assert (await phone.post("/token/logout")).status_code == 204
    assert await seen(phone) == [401]
    assert (await sessions.list_sessions(user.id)) == []


async def test_a_login_by_cookie_sets_our_cookie_alone(world: World, sessions: Sessions) -> None:
    user = await world.register()
    browser = await world.log_in(cookie=True)
    (session,) = await sessions.list_sessions(user.id)
    assert not session.bearer
    value = browser.cookies[sessions.cookie_name]
    assert value.startswith(f"{session.sid}.")
    assert await seen(browser) == [200]
    left = await browser.post("/cookie/logout")
    assert len(set_cookies(left)) == 1
    assert await seen(browser) == [401]
    browser.cookies[sessions.cookie_name] = value
    assert await seen(browser) == [401]


async def test_what_is_no_token_of_ours_proves_nothing_whatever_cookie_comes_beside_it(
    world: World, sessions: Sessions
) -> None:
    await world.register()
    browser = await world.log_in(cookie=True)
    (session,) = await sessions.list_sessions((await world.users.get_by_email(ADA["username"])).id)
    browser.headers["authorization"] = "Bearer of-another-layer"
    assert await seen(browser) == [200]  # by the cookie
    browser.headers["authorization"] = "Bearer asgis_junk"
    assert await seen(browser) == [401]  # which does not count beside a token of ours
    bare = Browser(world.app)
    for token in ("of-another-layer", session.sid):
        bare.headers["authorization"] = f"Bearer {token}"
        assert await seen(bare) == [401]


async def test_a_user_who_is_gone_is_nobody(world: World, sessions: Sessions) -> None:
    user = await world.register()
    phone = await world.log_in()
    world.users.rows.clear()
    assert await seen(phone) == [401]
    world.users.rows.append(user)
    await world.manager.delete(user)
    assert (await sessions.list_sessions(user.id)) == []


async def test_a_new_password_ends_the_others_and_a_copy_of_the_cookie(
    world: World, sessions: Sessions, clock: Clock
) -> None:
    user = await world.register()
    phone, lost = await world.log_in(), await world.log_in(cookie=True)
    here = await world.log_in(cookie=True)
    copied = here.cookies[sessions.cookie_name]
    assert (await here.patch("/users/me", json={"email": user.email})).status_code == 200
    assert await seen(phone, lost, here) == [200] * 3
    assert (await here.patch("/users/me", json={"password": "engine"})).status_code == 200
    assert await seen(phone, lost, here) == [401, 401, 200]
    assert here.cookies[sessions.cookie_name] != copied
    new = {**ADA, "password": "engine"}
    assert (await Browser(world.app).post("/token/login", data=ADA)).status_code == 400
    other = await Browser(world.app).post("/token/login", data=new)
    token = {"authorization": f"Bearer {other.json()['access_token']}"}
    again = await here.patch("/users/me", json={"password": "analytical"}, headers=token)
    assert again.status_code == 200
    assert await seen(here) == [401]
    assert (await here.get("/me", headers=token)).status_code == 200


async def test_a_password_that_was_reset_or_set_by_somebody_else_ends_all(
    world: World, sessions: Sessions
) -> None:
    user = await world.register()
    phone = await world.log_in()
    stranger = Browser(world.app)
    await stranger.post("/password/forgot-password", json={"email": user.email})
    new = {"token": world.sent[0], "password": ADA["password"]}
    assert (await stranger.post("/password/reset-password", json=new)).status_code == 200
    assert await seen(phone) == [401]
    phone = await world.log_in()
    await world.manager.on_after_update(user, {"password": "x"})  # by a script, without a request
    assert await seen(phone) == [401]
    phone = await world.log_in()
    chief = await world.register("chief@example.com")
    chief.is_superuser = True
    cookie = Browser(world.app)
    await cookie.post("/cookie/login", data={**ADA, "username": chief.email})
    for change in ({"password": ADA["password"]}, {"is_active": False}):
        phone = await world.log_in()
        answer = await cookie.patch(f"/users/{user.id}", json=change)
        assert answer.status_code == 200
        assert (await sessions.list_sessions(user.id)) == []
        assert await seen(phone, cookie) == [401, 200]


async def test_whatever_becomes_of_this_session_a_new_password_ends_the_others(
    world: World, sessions: Sessions
) -> None:
    user = await world.register()

    @world.app.post("/act")
    async def act(request: Request) -> None:
        if sessions.current(request) is None:
            await sessions.start_session(request, {"id": "chief"})
        else:
            await sessions.impersonate(request, {"id": user.id}, reason="ticket 7")

    @world.app.post("/race")
    async def race(request: Request) -> None:
        session = sessions.current(request)
        assert session is not None
        await sessions.end_session_by_id(session.sid)  # from another device, meanwhile
        await world.manager.on_after_update(user, {"password": "x"}, request)

    phone, actor = await world.log_in(), Browser(world.app)
    for _ in ("logs in", "acts for the user"):
        assert (await actor.post("/act")).status_code == 200
    answer = await actor.patch("/users/me", json={"password": ADA["password"]})
    assert answer.status_code == 200
    assert await seen(phone, actor) == [401, 200]
    phone, here = await world.log_in(), await world.log_in(cookie=True)
    await here.post("/race")
    assert await seen(phone, here) == [401, 401]
    phone, here = await world.log_in(), await world.log_in(cookie=True)
    await here.post("/password/forgot-password", json={"email": user.email})
    new = {"token": world.sent[0], "password": ADA["password"]}
    assert (await here.post("/password/reset-password", json=new)).status_code == 200
    assert await seen(phone, here) == [401, 401]


async def test_an_outage_is_no_logout(world: World, sessions: Sessions) -> None:
    await world.register()
    phone = await world.log_in()
    broken = World(
        Sessions("sqlite:////nowhere/s.db", secret_key=KEY, bearer=True, on_unavailable="anonymous")
    )
    answer = await Browser(broken.app).get("/me", headers=phone.headers)
    assert answer.status_code == 503


async def test_without_tokens_a_login_sets_the_cookie_and_no_token_counts(plain: Sessions) -> None:
    world = World(plain)
    user = await world.register()
    scope, _ = await entered(plain, {"id": user.id})
    request = Request(scope)
    strategy = session_strategy(plain)(request)
    assert vars(strategy) == vars(session_strategy(plain, cookie=True)(request))
    cookie = request.cookies[plain.cookie_name]
    assert await strategy.read_token(cookie, world.manager) is user
    for token in ("asgis_junk", None):
        assert await strategy.read_token(token, world.manager) is None
    scope["headers"] = []  # the session is there, and nothing that has brought it
    bare = session_strategy(plain)(Request(scope))
    assert await bare.read_token(None, world.manager) is None


def test_mistakes_are_named() -> None:
    wrong: Any = None
    with pytest.raises(ConfigurationError, match=r"session_strategy\(None\): pass the Sessions"):
        session_strategy(wrong)
    with pytest.raises(ConfigurationError, match="pass the Sessions"):
        type("Manager", (SessionsOfUsers, BaseUserManager), {})
    sessions = Sessions("sqlite:///never.db", secret_key=KEY)
    with pytest.raises(ConfigurationError, match="put SessionsOfUsers before its other bases"):
        type("Manager", (BaseUserManager, SessionsOfUsers), {}, sessions=sessions)
