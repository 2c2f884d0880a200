"""What the page takes from its readers and the app: language, time zone, links, form fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import httpx
import pytest
from starlette.types import Scope

from asgi_sessions import ConfigurationError, DevicesPage, Sessions
from tests.routes.test_routes import HTML, MINUTE, app_with, page_of
from tests.support import Browser, Clock
from tests.support.engines import sync_engine

pytestmark = pytest.mark.anyio

GERMAN = {"accept-language": "de-AT, de;q=0.9, en;q=0.5"}
ENGLISH_TITLE = "Where you are logged in"


async def seen(
    sessions: Sessions, query: str = "", headers: Mapping[str, str] | None = None, **options: Any
) -> httpx.Response:
    """The page of somebody who has just logged in."""
    browser = Browser(app_with(sessions, **options))
    await browser.login("ann")
    return await browser.get(f"/sessions/{query}", headers={**HTML, **(headers or {})})


async def given(sessions: Sessions, headers: Mapping[str, str], **options: Any) -> DevicesPage:
    """What a template is given."""
    pages: list[DevicesPage] = []

    def template(page: DevicesPage) -> str:
        pages.append(page)
        return ""

    await seen(sessions, "", headers, template=template, **options)
    return pages[0]


def title_of(response: httpx.Response) -> tuple[str, str]:
    """The language that a page says it has, and its title."""
    (tag,) = re.findall(r'<html lang="([\w-]+)" dir="\w+">', response.text)
    (title,) = re.findall(r"<h1>(.*)</h1>", response.text)
    return tag, title


# --- language -------------------------------------------------------------------------------------


#: What browsers send, and the language of the page.
ACCEPTED = {
    "de-AT, de;q=0.9, en;q=0.5": "de",
    "DE": "de",
    "fr, de;q=0.5": "de",
    "en-GB, de;q=0.9": "en",
    "de;q=0, en;q=0.1": "en",
    "fr": "en",
    "*": "en",
    "../../de,%00,de de,;q=1": "en",
    "": "en",
}


async def test_the_page_has_the_language_that_the_browser_would_rather_have(
    sessions: Sessions,
) -> None:
    browser = Browser(app_with(sessions))
    await browser.login("ann")
    titles = {"de": "Wo Sie angemeldet sind", "en": ENGLISH_TITLE}
    for accepted, tag in ACCEPTED.items():
        headers = {**HTML, "accept-language": accepted}
        page = await browser.get("/sessions/", headers=headers)
        assert title_of(page) == (tag, titles[tag]), accepted
        assert "Accept-Language" in page.headers["vary"]


async def test_german_is_whole(sessions: Sessions, clock: Clock) -> None:
    app = app_with(sessions, fresh_for=MINUTE, login_url="/login", home_url="/")
    here, gone, left = Browser(app, agent="Thing/1"), Browser(app), Browser(app)
    for browser in (here, gone, left):
        browser.headers.update({**GERMAN, **HTML})
    await here.login("ann")
    sid = await gone.login("ann")
    await sessions.end_session_by_id(sid)
    clock.turn(2 * MINUTE)
    sid = await left.login("ann")
    texts = [(await here.get("/sessions/?ended=1&closed=2")).text]
    texts += [(await here.post(f"/sessions/{path}")).text for path in (f"{sid}/end", "end-others")]
    texts += [(await here.get(f"/sessions/{path}")).text for path in (sid, "x")]
    here.cookies.clear()
    texts += [(await here.get(f"/sessions/?{query}")).text for query in ("left=1", "closed=1")]
    said = "\n".join(texts)
    for text in ("2 Sitzungen wurden beendet.", "</time> von einem anderen Gerät aus beendet"):
        assert text in said
    for text in ("Zuletzt aktiv <time", ">vor 2 Minuten</time>", "Abmelden: Thing/1"):
        assert text in said
    assert not re.search(
        r"\b(the|you|your|logged|ended|session|back|none)\b", shown(said), re.IGNORECASE
    )
    german = (await given(sessions, GERMAN)).language.texts
    english = (await given(sessions, {})).language.texts
    assert german.keys() == english.keys()
    same = {name for name in english if german[name] == english[name]}
    assert same == set()


def shown(html: str) -> str:
    """What people read of pages."""
    return re.sub(r"<[^>]*>", " ", html)


async def test_an_app_adds_languages_and_changes_words(sessions: Sessions, clock: Clock) -> None:
    translate = {
        "pt_br": {"title": "Onde você está conectado", "minutes_ago": "há {count} min"},
        "ar": {"title": "أين أنت"},
        "pl": {"closed": lambda count: f"zamknięto {count}" + ("!" if count in (2, 3, 4) else "")},
        "en": {"title": "Your devices"},
    }
    for accepted, tag, title in (
        ("pt-BR", "pt-BR", "Onde você está conectado"),
        ("pt, ar-EG", "ar", "أين أنت"),
        ("en, ar", "en", "Your devices"),
        ("nl", "en", "Your devices"),
        ("de", "de", "Wo Sie angemeldet sind"),
    ):
        page = await seen(sessions, "", {"accept-language": accepted}, translate=translate)
        assert title_of(page) == (tag, title)
        assert f'dir="{"rtl" if tag == "ar" else "ltr"}"' in page.text
    page = await seen(sessions, "?closed=3", {"accept-language": "pl"}, translate=translate)
    assert 'role="status">zamknięto 3!<' in page.text
    assert title_of(page) == ("pl", ENGLISH_TITLE)  # what is left out is English
    brazilian = await given(sessions, {"accept-language": "pt-BR"}, translate=translate)
    assert brazilian.ago(clock.now - 5 * MINUTE) == "há 5 min"


async def test_the_direction_is_that_of_the_script(sessions: Sessions) -> None:
    directions = {"he": "rtl", "az-Arab": "rtl", "ar-Latn": "ltr", "pt-BR": "ltr"}
    for tag, direction in directions.items():
        page = await given(sessions, {}, language=tag, translate={tag: {}})
        assert (page.language.tag, page.language.direction) == (tag, direction)


async def test_a_function_has_the_texts_of_a_language_and_is_asked_for_few(
    sessions: Sessions,
) -> None:
    asked: list[str] = []

    def translate(tag: str) -> dict[str, str] | None:
        asked.append(tag)
        return {"title": "Où"} if tag == "fr" else None

    french = {"accept-language": "fr-CA, de"}
    page = await seen(sessions, "", french, translate=translate)
    assert (title_of(page), asked) == (("fr", "Où"), ["fr-CA", "fr"])
    asked.clear()
    many = ",".join(f"x{i:03}-YY;q=0.{i % 7 + 1}" for i in range(10_000))
    page = await seen(sessions, "", {"accept-language": many}, translate=translate)
    assert title_of(page)[0] == "en"
    assert len(asked) <= 2 * 8 + 1
    with pytest.raises(ConfigurationError, match="has a text 'titel'"):
        await seen(sessions, translate=lambda _: {"titel": "x"})


async def test_the_app_may_choose_the_language(sessions: Sessions) -> None:
    async def of_the_query(scope: Scope) -> str | None:
        return scope["query_string"].decode() or None

    assert title_of(await seen(sessions, language="de"))[0] == "de"
    for query, tag in (("?de", "de"), ("?no_NO", "en"), ("", "de"), ("?<b>", "de")):
        page = await seen(sessions, query, GERMAN, language=of_the_query)
        assert title_of(page)[0] == tag


async def test_programs_get_the_same_words_whatever_their_language(sessions: Sessions) -> None:
    browser = Browser(app_with(sessions, language="de"))
    answer = await browser.get("/sessions/", headers=GERMAN)
    assert answer.json()["detail"] == "not logged in"


async def test_devices_that_share_a_session_are_named_in_the_language(
    sessions: Sessions, clock: Clock
) -> None:
    page = await given(sessions, GERMAN)
    for agent, said in (("Other devices", "Weitere Geräte"), (None, "Unbekanntes Gerät")):
        browser = Browser(app_with(sessions), agent=agent or "")
        session = await sessions.get_by_id(await browser.login("ann"))
        assert session is not None
        assert page.device(session) == said


async def test_the_page_says_who_acts_for_its_person_and_why(
    sessions: Sessions, database_url: str
) -> None:
    browser = Browser(app_with(sessions))
    await browser.login("ann")
    engine = sync_engine(database_url)
    with engine.begin() as connection:
        acting = {"actor_id": "<bob>", "actor_reason": "a ticket"}
        connection.execute(sessions.table.update().values(acting))
    engine.dispose()
    assert "<bdi>&lt;bob&gt; acts for you: a ticket</bdi>" in await page_of(browser)


# --- times ----------------------------------------------------------------------------------------


async def test_times_are_those_of_the_reader(sessions: Sessions) -> None:
    moment = datetime(2025, 11, 30, 19, 30, tzinfo=UTC)
    tokyo = ("2025-12-01 04:30:00 JST", "am 1. Dezember 2025")
    utc = ("2025-11-30 19:30:00 UTC", "am 30. November 2025")
    home = timezone(timedelta(hours=-9), "home")
    zones: list[tuple[Any, tuple[str, str]]] = [
        ("Asia/Tokyo", tokyo),
        (home, ("2025-11-30 10:30:00 home", "am 30. November 2025")),
        (None, utc),
        (lambda _: "Asia/Tokyo", tokyo),
        *((partial(_given, zone), utc) for zone in ("Mars/Olympus", "../../etc/passwd", "", 7)),
    ]
    for zone, said in zones:
        page = await given(sessions, GERMAN, time_zone=zone)
        assert (page.exact(moment), page.ago(moment)) == said


async def test_a_time_says_its_moment_to_programs_and_its_zone_to_people(
    sessions: Sessions, clock: Clock
) -> None:
    page = await seen(sessions, time_zone="Europe/Berlin")
    exact = 'title="2026-01-01 13:00:00 CET"'
    assert f'<time datetime="{clock.now.isoformat()}" {exact}>just now</time>' in page.text


# --- links and form fields ------------------------------------------------------------------------


async def test_links_and_form_fields_of_the_app_stand_where_they_belong(
    sessions: Sessions,
) -> None:
    evil = "\"'><script>"
    escaped = "&quot;&#x27;&gt;&lt;script&gt;"

    async def fields(scope: Scope) -> dict[str, str]:
        return {"csrf": scope["path"], evil: evil}

    app = app_with(sessions, links={"Help": "/help?a=1&b=2", evil: "/x"}, form_fields=fields)
    browser = Browser(app)
    await browser.login("ann")
    await Browser(app).login("ann")
    html = await page_of(browser)
    forms = re.findall("<form.*?</form>", html)
    assert len(forms) == 3
    for form in forms:
        assert '<input type="hidden" name="csrf" value="/sessions/">' in form
        assert f'name="{escaped}" value="{escaped}"' in form
    refusal = (await browser.get("/sessions/x", headers=HTML)).text
    for page in (html, refusal):
        assert '<a href="/help?a=1&amp;b=2">Help</a>' in page
        assert f'<a href="/x">{escaped}</a>' in page
        assert "<script" not in page


async def test_what_a_function_gives_is_checked(sessions: Sessions) -> None:
    for option, wrong in (
        ("links", {"x": "javascript:alert(1)"}),
        ("links", ["/x"]),
        ("form_fields", {"csrf": 7}),
    ):
        app = app_with(sessions, **{option: partial(_given, wrong)})
        with pytest.raises(ConfigurationError, match=option):
            await Browser(app).get("/sessions/x", headers=HTML)


def _given(what: object, scope: Scope) -> object:
    return what


@pytest.mark.parametrize(
    ("options", "faults"),
    [
        ({"translate": "de"}, ["translate='de': use a mapping"]),
        ({"translate": {"d": {}, "fr": []}}, ["'d' is no language", "'fr' has []"]),
        (
            {
                "translate": {
                    "fr": {
                        "titel": "x",
                        "title": 7,
                        "closed": 7,
                        "via": "par {provider.x}",
                        "back": "{} retour",
                        "end": "fin }",
                        "months": "janvier",
                        "last_seen": "vu",
                        "date": "{day!r}{month}{year:4}",
                    }
                }
            },
            [
                "has a text 'titel'",
                "title=7: use a str",
                "closed=7: use a str or a function of the count",
                "placeholders are {provider}",
                "placeholders are none",
                "placeholders are none",
                "twelve months",
                "placeholders are {when}",
                "placeholders are {day}, {month}, {year}",
            ],
        ),
        ({"language": "d"}, ["language='d'"]),
        ({"time_zone": "Mars/Olympus"}, ["time_zone='Mars/Olympus'"]),
        ({"time_zone": 3}, ["time_zone=3"]),
        ({"links": ["/x"]}, ["links=['/x']"]),
        ({"links": {"x": "//evil.example"}}, ["links['x']='//evil.example'"]),
        ({"form_fields": {"a": 1}}, ["form_fields={'a': 1}"]),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    sessions: Sessions, options: dict[str, Any], faults: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        sessions.routes(**options)
    said = str(raised.value).split("; ")
    assert len(said) == len(faults)
    for one, fault in zip(said, faults, strict=True):
        assert fault in one
