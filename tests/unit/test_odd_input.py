"""Odd input of what is pure: tokens, cookies, the device, changesets, the origin of a logout.

Most of it is private; the same input is thrown at the middleware in tests/bad_input.
"""

from __future__ import annotations

import string
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import ip_address, ip_network
from itertools import pairwise
from typing import Any
from uuid import UUID

from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import Boolean, DateTime, LargeBinary, MetaData, String
from starlette.datastructures import Headers

from asgi_sessions import ConfigurationError, Session, changeset
from asgi_sessions._model.carrier import Carriers
from asgi_sessions._model.cookies import VALUE_LENGTH, CookieSettings
from asgi_sessions._model.device import (
    USER_AGENT_LENGTH,
    StoreIP,
    address_to_store,
    clean_address,
    clean_user_agent,
)
from asgi_sessions._model.tokens import (
    KEY_LENGTH,
    KEY_VARIETY,
    SID_PATTERN,
    Keys,
    Token,
    digest,
    new_secret,
    new_sid,
)
from asgi_sessions._pages.cross_origin import crosses_sites
from asgi_sessions._store.tables import sessions_table
from tests.support import KEY, OLD_KEY, Clock
from tests.support.odd_input import (
    MANY,
    NAME,
    addresses,
    characters,
    cookie_headers,
    header_names,
    is_text,
    junk,
    moments,
    segments,
    texts,
    token_like,
)

SECOND = timedelta(seconds=1)
GRACE = timedelta(seconds=60)


# --- keys and tokens ---------------------------------------------------------------------------

keys = st.one_of(
    st.text(min_size=KEY_LENGTH, max_size=80), st.binary(min_size=KEY_LENGTH, max_size=80)
).filter(lambda key: len(set(key)) >= KEY_VARIETY)
tokens = st.builds(
    lambda moment, tail, secret: Token(
        new_sid(moment, lambda _: tail), new_secret(lambda _: secret)
    ),
    st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.binary(min_size=10, max_size=10),
    st.binary(min_size=32, max_size=32),
)


@MANY
@given(token=tokens, key=keys, old=st.lists(keys, max_size=3), purpose=st.text(max_size=20))
def test_what_a_key_signs_it_verifies_as_an_old_one_too(
    token: Token, key: str | bytes, old: list[str | bytes], purpose: str
) -> None:
    value = Keys(key, old, purpose=purpose).sign(token)
    assert len(value) == 124
    assert value.isascii()
    assert Keys(key, (), purpose=purpose).verify(value) == (token.sid, digest(token.secret))
    assert Keys(OLD_KEY, [*old, key], purpose=purpose).verify(value) == (
        token.sid,
        digest(token.secret),
    )
    assert Keys(key, (), purpose=purpose + "x").verify(value) is None
    assert Keys(OLD_KEY, (), purpose=purpose).verify(value) is None


@MANY
@given(value=texts | token_like)
def test_what_no_key_signed_does_not_verify(value: str) -> None:
    assert Keys(KEY, [OLD_KEY], purpose="default").verify(value) is None


@MANY
@given(key=texts | st.binary(max_size=50) | junk)
@example(key="key" * 10)
@example(key=b"key" * 10)
@example(key="ключ" * 7)
@example(key="x" * KEY_LENGTH + "\ud800")
def test_a_key_is_taken_or_refused_without_being_told(key: Any) -> None:
    long_enough = (
        isinstance(key, str | bytes) and len(key) >= KEY_LENGTH and len(set(key)) >= KEY_VARIETY
    )

    told = None
    try:
        made = [Keys(key, (), purpose=""), Keys(KEY, [key], purpose="")]
    except ConfigurationError as fault:
        told = str(fault)
    else:
        assert not any(repr(key) in repr(one) for one in made)
    assert long_enough or told is not None
    if told is not None:
        assert not long_enough or not is_text(key)
        assert "secret_key and old_secret_keys" in told
        assert not isinstance(key, str) or len(key) < 10 or key not in told


@MANY
@given(
    first=st.tuples(texts, texts, texts | st.none(), st.none() | addresses),
    second=st.tuples(texts, texts, texts | st.none(), st.none() | addresses),
)
@example(first=("a", "bc", None, None), second=("ab", "c", None, None))
@example(first=("a", "b", None, ""), second=("a", "b", "", None))
@example(first=("a", "b", "-", None), second=("a", "b", None, "-"))
def test_different_devices_have_different_keys(
    first: tuple[str | None, ...], second: tuple[str | None, ...]
) -> None:
    try:
        one, two = (
            Keys(KEY, [OLD_KEY], purpose="").device_keys(*facts) for facts in (first, second)
        )
    except UnicodeEncodeError:  # gone from what `Core` passes
        return
    assert (set(one) & set(two) == set()) is (first != second)


@MANY
@given(
    moments=st.lists(
        st.datetimes(
            min_value=datetime(1970, 1, 1),  # noqa: DTZ001 -- the zone follows
            timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5))]),
        ),
        min_size=2,
        max_size=5,
    ),
    tails=st.lists(st.binary(min_size=10, max_size=10), min_size=5, max_size=5),
)
def test_a_sid_is_a_uuid_of_version_7_in_the_order_of_time(
    moments: list[datetime], tails: list[bytes]
) -> None:
    made = [
        (moment, new_sid(moment, lambda _, tail=tail: tail))  # type: ignore[misc]
        for moment, tail in zip(sorted(moments), tails, strict=False)
    ]
    for _, sid in made:
        assert SID_PATTERN.fullmatch(sid)
        assert (UUID(sid).version, UUID(sid).variant) == (7, "specified in RFC 4122")
    for (earlier, first), (later, second) in pairwise(made):
        if later - earlier >= timedelta(milliseconds=1):
            assert first < second
        assert first[:13] <= second[:13]


# --- the cookie on the wire --------------------------------------------------------------------

cookie_settings = st.builds(
    CookieSettings,
    name=st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1).filter(
        lambda name: not name.lower().startswith(("__host-", "__secure-"))
    ),
    secure=st.just(value=True),
    samesite=st.sampled_from(["lax", "strict", "none"]),
    domain=st.sampled_from([None, "example.com"]),
    path=st.sampled_from(["/", "/app"]),
    partitioned=st.booleans(),
)
#: cookie-octets of RFC 6265.
octets = st.text(st.sampled_from(sorted({*map(chr, range(0x21, 0x7F))} - set('",;\\'))), min_size=1)


@MANY
@given(
    cookie=cookie_settings,
    value=octets,
    max_age=st.none() | st.integers(0, 400 * 86_400),
    around=st.tuples(segments, segments),
)
def test_a_cookie_that_is_written_is_read(
    cookie: CookieSettings, value: str, max_age: int | None, around: tuple[bytes, bytes]
) -> None:
    pair, *attributes = cookie.render(value, max_age=max_age).split(b"; ")
    assert {b"HttpOnly", b"Secure", b"Path=" + cookie.path.encode()} <= set(attributes)
    assert (b"Max-Age=%d" % (max_age or 0) in attributes) is (max_age is not None)
    line = b"; ".join((around[0], pair, around[1]))
    assert value in cookie.reader()([(b"accept", b"*/*"), (b"cookie", line)])


@MANY
@given(lines=cookie_headers)
@example(lines=[b"%b=%b; %b=%b" % (NAME, b"a" * VALUE_LENGTH, NAME, b"b" * (VALUE_LENGTH + 1))])
@example(lines=[NAME + b"=a", NAME + b"=b; " + NAME + b"=a"])
def test_what_is_read_is_each_value_of_our_name_once_and_none_that_is_too_long(
    lines: list[bytes],
) -> None:
    pairs = [pair.strip(b" \t") for line in lines for pair in line.split(b";")]
    sent = [pair[len(NAME) + 1 :] for pair in pairs if pair.startswith(NAME + b"=")]
    read = CookieSettings().reader()([(b"cookie", line) for line in lines])
    known = dict.fromkeys(value.decode("latin-1") for value in sent if 0 < len(value) <= 512)
    assert read == list(known)[:8]


response_headers = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from([b"vary", b"Vary", b"VARY"]),
            st.sampled_from(
                [
                    b"",
                    b"*",
                    b"cookie",
                    b"Accept",
                    b"Accept, COOKIE ,x",
                    b"Accept-Encoding",
                    b"x-cookie",
                ]
            ),
        ),
        st.tuples(st.sampled_from([b"cache-control", b"Cache-Control"]), st.binary(max_size=20)),
        st.tuples(
            st.sampled_from([b"set-cookie", b"Set-Cookie"]),
            st.sampled_from(
                [
                    NAME + b"=theirs; Path=/",
                    b" " + NAME + b"=theirs",
                    NAME + b"=",
                    NAME + b"2=another",
                    b"other=" + NAME + b"=1",
                    b"session=x; HttpOnly",
                ]
            ),
        ),
        st.tuples(st.binary(max_size=10), st.binary(max_size=10)),
    ),
    max_size=8,
)


def names(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def is_ours(set_cookie: bytes) -> bool:
    """As a browser reads it (RFC 6265, 5.2)."""
    return set_cookie.partition(b";")[0].partition(b"=")[0].strip(b" \t") == NAME


@MANY
@given(headers=response_headers, writes=st.booleans(), vary=st.booleans())
def test_one_response_never_has_two_cookies_of_ours_and_varies_if_it_must(
    headers: list[tuple[bytes, bytes]], writes: bool, vary: bool
) -> None:
    cookie = CookieSettings().render("ours", max_age=None) if writes else None
    before = list(headers)
    written = headers if cookie is None else CookieSettings().write(headers, cookie)
    if vary:
        written = Carriers(bearer=False).for_caches(written, private=False)
    assert headers == before
    if cookie is not None:
        assert [value for value in names(written, b"set-cookie") if is_ours(value)] == [cookie]
        assert names(written, b"cache-control") == [b"no-store"]
    others = [value for value in names(before, b"set-cookie") if not is_ours(value)]
    assert [value for value in names(written, b"set-cookie") if not is_ours(value)] == others
    fields = [
        [field.strip().lower() for value in names(response, b"vary") for field in value.split(b",")]
        for response in (before, written)
    ]
    assert set(fields[0]) <= set(fields[1])
    if not vary:
        assert fields[0] == fields[1]
    elif b"*" not in fields[0]:
        assert fields[1].count(b"cookie") == max(fields[0].count(b"cookie"), 1)
    touched = (b"vary", b"set-cookie", b"cache-control")
    assert [pair for pair in written if pair[0].lower() not in touched] == [
        pair for pair in before if pair[0].lower() not in touched
    ]


@MANY
@given(
    options=st.fixed_dictionaries(
        {},
        optional={
            "name": texts,
            "secure": st.booleans(),
            "samesite": texts,
            "domain": texts,
            "path": texts,
            "partitioned": st.booleans(),
        },
    )
)
def test_cookie_options_work_or_are_refused_and_inject_nothing(options: dict[str, Any]) -> None:
    try:
        cookie = CookieSettings(**options)
    except ConfigurationError:
        return
    rendered = cookie.render("value", max_age=1)
    assert rendered.isascii()
    assert bytes(rendered).count(b";") == rendered.count(b"; ")
    assert b"\n" not in rendered
    assert b"\r" not in rendered


# --- the device --------------------------------------------------------------------------------


@MANY
@given(text=st.text(characters, max_size=1200))
@example(text="x" * 10_000)
@example(text=" " * 499 + "x")
@example(text="\x1b[31mred\r\n\0\ud800\u202e")
def test_a_user_agent_is_cut_and_harmless(text: str) -> None:
    clean = clean_user_agent(text)
    if clean is None:
        assert text[:USER_AGENT_LENGTH].strip() == ""
        return
    assert 0 < len(clean) <= USER_AGENT_LENGTH
    assert clean.isprintable()
    assert clean.encode().decode() == clean
    assert clean_user_agent(clean) == clean
    if text.isprintable():
        assert clean == text[:500].strip()


@MANY
@given(address=st.one_of(st.ip_addresses(), texts, junk))
@example(address="::ffff:192.0.2.1")
@example(address="fe80::1%eth0")
@example(address="192.0.2.1:80")
def test_an_address_has_one_spelling_and_nonsense_none(address: object) -> None:
    clean = clean_address(address)
    if clean is not None:
        assert clean == str(ip_address(clean))
        assert len(clean) <= 45
        assert clean_address(clean) == clean
    if not isinstance(address, str | int):
        try:
            ip_address(str(address))
        except ValueError:
            assert clean is None
        else:
            assert clean is not None


@MANY
@given(
    address=st.none() | st.ip_addresses().map(str),
    how=st.sampled_from(["full", "truncated", "none"]),
)
def test_no_more_of_an_address_is_kept_than_was_asked(address: str | None, how: StoreIP) -> None:
    address = clean_address(address)
    kept = address_to_store(address, how)
    if address is None or how == "none":
        assert kept is None
    elif how == "full":
        assert kept == address
    else:
        assert kept is not None
        network = ip_network(f"{kept}/{24 if '.' in kept else 48}")  # raises if host bits are set
        assert ip_address(address) in network
        assert address_to_store(kept, how) == kept


# --- the changeset -----------------------------------------------------------------------------

COLUMNS = sessions_table("sessions", MetaData()).c

plausible = st.one_of(
    junk,
    moments,
    st.binary(min_size=32, max_size=32),
    st.text(characters, min_size=1, max_size=600),
    st.ip_addresses().map(str),
    st.sampled_from(["login", "scope", "ann", "0190b6c2-8d5e-7000-8000-000000000000"]),
)
attributes = st.dictionaries(st.sampled_from([*COLUMNS.keys(), "unknown"]), plausible, max_size=12)
LIVE = Session(
    id="0190b6c2-8d5e-7000-8000-000000000000",
    person_id="ann",
    app_id="default",
    auth_provider=None,
    origin="login",
    user_agent=None,
    ip_address=None,
    started_at=Clock().now,
    last_seen_at=Clock().now,
    idle_expires_at=Clock().now + timedelta(hours=1),
    authenticated_at=None,
    expires_at=Clock().now + timedelta(days=1),
    ended_at=None,
    end_reason=None,
    remember=True,
)
ENDED = replace(LIVE, ended_at=Clock().now, end_reason="logout")


def fits(name: str, value: object) -> bool:
    """Whether a column takes a value as it is, in any database."""
    if value is None:
        return True
    kind = COLUMNS[name].type
    if isinstance(kind, String):
        short = isinstance(value, str) and kind.length is not None and len(value) <= kind.length
        return short and "\0" not in str(value) and bool(str(value).encode())
    if isinstance(kind, LargeBinary):
        return isinstance(value, bytes) and len(value) == 32
    if isinstance(kind, DateTime):
        return isinstance(value, datetime) and value.tzinfo is UTC
    return isinstance(kind, Boolean) and isinstance(value, bool)


@MANY
@given(attrs=attributes, session=st.sampled_from([None, LIVE, ENDED]), ids=st.booleans())
@example(
    attrs={"started_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))},
    session=None,
    ids=True,
)
@example(
    attrs={"ended_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))},
    session=LIVE,
    ids=True,
)
@example(attrs={"user_agent": "x" * 10_000, "end_reason": "x" * 51}, session=LIVE, ids=True)
@example(attrs={"ended_at": Clock().now, "end_reason": "revoked"}, session=ENDED, ids=False)
def test_a_changeset_tells_the_faults_and_what_it_passes_can_be_stored(
    attrs: dict[str, Any], session: Session | None, ids: bool
) -> None:
    if ids:
        attrs = {"person_id": "ann", "app_id": "default", **attrs}
    made = changeset(session, attrs)
    assert made.valid is (made.errors == {})
    assert all(messages and all(messages) for messages in made.errors.values())
    assert made.errors.keys() <= {*attrs, "person_id", "app_id"}
    assert made.changes.keys() <= attrs.keys() & set(COLUMNS.keys())
    assert all(fits(name, value) for name, value in made.changes.items())
    # What has been cast stays as it is.
    assert changeset(session, made.changes).changes == made.changes
    if session is None:
        named = {name for name in ("person_id", "app_id") if attrs.get(name) is not None}
        assert {"person_id", "app_id"} - named <= made.errors.keys()
    elif session.ended_at is not None and made.valid:
        assert not {"ended_at", "end_reason"} & made.changes.keys()
    if isinstance(agent := attrs.get("user_agent"), str) and session is None:
        assert made.changes["user_agent"] == clean_user_agent(agent)


# --- the logout route --------------------------------------------------------------------------

ORIGINS = ["https://example.com", "https://evil.example", "null", "", "https://EXAMPLE.com", "x"]


@MANY
@given(
    headers=st.lists(st.tuples(header_names, st.binary(max_size=30)), max_size=5),
    same_site=st.booleans(),
)
def test_whatever_its_headers_hold_a_post_is_refused_or_not(
    headers: list[tuple[bytes, bytes]], same_site: bool
) -> None:
    refused = crosses_sites(Headers(raw=headers), same_site=same_site)
    sent = dict(reversed(headers))  # the first of each counts
    fetch_site, origin = sent.get(b"sec-fetch-site"), sent.get(b"origin")
    if fetch_site is not None:
        own = {b"same-origin", b"none", *([b"same-site"] if same_site else [])}
        assert refused is (fetch_site not in own)
    else:
        # The made-up ones are no origins of this host.
        assert refused is (origin is not None)


@MANY
@given(
    fetch_site=st.sampled_from([None, "same-origin", "same-site", "cross-site", "none", "", "x"]),
    origin=st.sampled_from([None, *ORIGINS]) | texts,
    host=st.sampled_from([None, "example.com", "Example.com", "evil.example", ""]),
    same_site=st.booleans(),
)
@example(fetch_site=None, origin="null", host="example.com", same_site=False)
@example(fetch_site=None, origin="null", host=None, same_site=False)
@example(fetch_site=None, origin="", host="", same_site=False)
@example(fetch_site=None, origin="https://", host="", same_site=False)
@example(fetch_site="cross-site", origin="https://example.com", host="example.com", same_site=True)
def test_a_post_passes_from_its_own_site_or_from_what_is_no_browser(
    fetch_site: str | None, origin: str | None, host: str | None, same_site: bool
) -> None:
    sent = {"sec-fetch-site": fetch_site, "origin": origin, "host": host}
    headers = Headers(
        raw=[
            (name.encode(), value.encode("latin-1", "replace"))
            for name, value in sent.items()
            if value is not None
        ]
    )
    if fetch_site is not None:
        passes = fetch_site in ("same-origin", "none") or (same_site and fetch_site == "same-site")
    elif origin is None:
        passes = True
    else:
        passes = bool(host) and origin.lower() in (f"https://{host}".lower(), f"http://{host}")
    assert crosses_sites(headers, same_site=same_site) is not passes
