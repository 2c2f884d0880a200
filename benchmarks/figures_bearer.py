"""Figure v: what a resume by token costs against one by cookie."""

from __future__ import annotations

from asgi_sessions._model.bearer import PREFIX
from asgi_sessions._model.tokens import Keys, Token

from .apps import KEY
from .figure import Figure, ratio
from .lab import Lab
from .load import Contender, requests
from .places import Place


async def resumes(lab: Lab, place: Place) -> list[Figure]:
    """v: a resume by token against one by cookie, of the same app and the same rows."""
    cookies = lab.sample.cookies
    tokens = [_token(cookie) for cookie in cookies]
    async with lab.opened(place, bearer=True) as (_, app):
        by_token = requests(app, "/me", tokens, header=b"authorization")
        by_cookie = requests(app, "/me", cookies)
        rounds = await lab.contest(
            f"tokens and cookies, {place.name}",
            [
                Contender("token 1", by_token),
                Contender("cookie 1", by_cookie),
                Contender("token 64", by_token, 64),
                Contender("cookie 64", by_cookie, 64),
            ],
        )
    return [
        ratio(
            "v",
            f"a resume by token, {what}, {place.name}, against one by cookie",
            rounds,
            (f"token {number}", f"cookie {number}"),
            bound=1.05,
        )
        for number, what in ((1, "1 at a time"), (64, "64 at once"))
    ]


def _token(cookie: bytes) -> bytes:
    """The token of the session that a cookie opens."""
    sid, secret, _ = cookie.decode().partition("=")[2].split(".")
    signed = Keys(KEY, (), purpose="default").sign(Token(sid, secret), "bearer")
    return f"Bearer {PREFIX}{signed}".encode()
