"""The steps of a session's life, on rows: start, find, renew, touch, end."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from asgi_sessions._errors import InvalidSession, SessionsError
from asgi_sessions._model.changeset import checked
from asgi_sessions._model.decisions import (
    BY_FINDING,
    Cutoff,
    Found,
    Then,
    Who,
    found_as,
    is_cut_off,
    readmitted_at,
    vouches,
    was_thrown_out,
    who_is,
)
from asgi_sessions._model.device import OTHER_DEVICES, Device, address_to_store
from asgi_sessions._model.device_name import family
from asgi_sessions._model.lifetimes import Lifetimes, Terms
from asgi_sessions._model.person import Person
from asgi_sessions._model.provider import names_of, session_name_of
from asgi_sessions._model.row import Row, enforced_at
from asgi_sessions._model.session import Session
from asgi_sessions._model.tokens import (
    SID_PATTERN,
    Token,
    digest,
    looks_like_ours,
    microseconds,
    new_secret,
)
from asgi_sessions._store.data import Owner
from asgi_sessions._store.store import Finding, Store, Touch

from .acting import end_other
from .background import BackgroundTasks, slices
from .data_steps import DataSteps
from .events import Events
from .live_connections import Alive, LiveConnections
from .new_rows import NewRows, of_other_devices
from .options import Settings

_OVER = {"provider_sid": ["has been ended by the provider"]}
#: The name of a task that waits until a use has been noted.
TOUCH = "asgi_sessions touch"
#: Rows of a person that are asked for the browser of a login: live ones, and as many ended ones.
_LOOKED_AT = 50
_NEVER = datetime.min.replace(tzinfo=UTC)


class Started(NamedTuple):
    """A session, its row, and its token if it is new: one that was found has given it away. If it
    has taken over the data of a visitor or of the session that it replaces, `source_data` is what
    those had.
    """

    session: Session
    row: Row
    token: Token | None
    source_data: dict[str, Any] | None = None


class Core:
    """Carries out the steps of a session's life; the middleware and `Sessions` both call it.

    Args:
        settings: the options.
        store: the rows.
        events: the reports to the log, the metrics and the app.
        background: what runs beside requests.
        random: returns so many random bytes.

    Attributes:
        new_rows: makes the rows of new sessions.
        random: returns so many random bytes.
        proof_lifetime: how long the proof of a device is good; zero where no device can prove
            itself.
        uncommitted: in a transaction of the app, the logins that nobody else sees yet.
    """

    proof_lifetime = timedelta(0)
    uncommitted: list[tuple[str, Person]] | None = None

    def __init__(
        self,
        settings: Settings,
        store: Store,
        events: Events,
        background: BackgroundTasks,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.settings = settings
        self.store = store
        self.events = events
        self.background = background
        self.random = random
        self.new_rows = NewRows(settings, random)
        #: What happens to data; None where sessions have none.
        self.data: DataSteps | None = None
        if settings.session_data is not None:
            self.data = DataSteps(settings, store, events, background, random)
        self.live_connections = LiveConnections(
            self._living,
            settings.socket_check_interval,
            store.listener if settings.notify else None,
        )

    def within(
        self,
        store: Store,
        events: Events,
        background: BackgroundTasks,
        live_connections: LiveConnections,
    ) -> Core:
        """The same, with other rows to work on and others to report to."""
        other = copy(self)
        other.store, other.events = store, events
        other.background, other.live_connections = background, live_connections
        other.uncommitted = []
        return other

    # --- values -------------------------------------------------------------------------------

    def session(self, row: Row) -> Session:
        """The public side of a row; what has run out has ended, written down or not."""
        return _public(row, self.settings.now(), self.settings.terms)

    def sessions(self, rows: Iterable[Row]) -> list[Session]:
        """The public sides of some rows."""
        now, terms = self.settings.now(), self.settings.terms
        return [_public(row, now, terms) for row in rows]

    # --- steps --------------------------------------------------------------------------------

    async def start(
        self,
        device: Device,
        person: Person,
        *,
        remember: bool,
        replaces: str | None = None,
        known: bool = False,
        marked_at: datetime | None = None,
        announce: Callable[[str], None] | None = None,
        source: Owner | None = None,
        bearer: bool = False,
        lifetimes: Lifetimes | None = None,
    ) -> Started:
        """A new row of origin ``login``.

        Args:
            device: on which.
            person: whose.
            remember: whether the cookie outlives the browser.
            replaces: the session that it takes the place of.
            known: whether the browser has shown by its cookie that it is no new device.
            marked_at: when the browser was last marked as one of theirs.
            announce: is told its sid before it is written.
            source: whose data it takes over.
            bearer: whether its client sends a token.
            lifetimes: its own, if it has some.
        """
        now = self.settings.now()
        if await self._is_over(person):
            raise InvalidSession(_OVER)
        await self.note_proof(person)
        values, token, keys = self.new_rows.make(
            device, person, "login", now, remember=remember, bearer=bearer, lifetimes=lifetimes
        )
        new_device = await self._is_new(device, person, keys, known=known, marked_at=marked_at)
        if announce is not None:
            announce(token.sid)
        row, ended, crowded, source_data = await self.store.insert(
            values, replaces=replaces, now=now, source=source
        )
        session = self.session(row)
        await self._started(session, ended, new_device=new_device)
        if crowded:
            await self.report_batches(self.store.trim(row, now=now))
        # Whoever has ended it writes that down first, so that one of the two sees the other.
        if await self.end_if_over(row.id, person):
            raise InvalidSession(_OVER)
        if self.uncommitted is not None:
            self.uncommitted.append((row.id, person))
        return Started(session, row, token, source_data)

    async def find_or_start(
        self,
        device: Device,
        person: Person,
        *,
        start: bool,
        known: bool,
        marked_at: datetime | None = None,
        source: Owner | None = None,
    ) -> tuple[Then, Started | None, str | None]:
        """The session of a person without a cookie: named by their token, or their device's; else
        a new one of origin ``scope``. With the decision, and why a dead one is dead.
        """
        settings, now = self.settings, self.settings.now()
        own, shared = (
            self.new_rows.device_keys(device, person),
            self.new_rows.device_keys(OTHER_DEVICES, person),
        )
        asked = _about(person)._replace(sid=_sid(person), keys=(*own, *shared))
        row, device_row, cutoffs = await self.store.find(asked)
        claimed = row is not None and (row.person_id, row.app_id) == (person.id, person.app_id)
        if not claimed:
            row = device_row or await self.store.by_device(asked.keys, origin="scope")
        found, who = found_as(row, now, settings.terms, claimed=claimed), Who.SAME
        if row is not None:
            who = who_is(person, row, now, settings.terms, readmitted_at(cutoffs))
        sid = row.id if row is not None and found is Found.LIVE else None
        if not (claimed and sid) and is_cut_off(cutoffs, person.proof, sid):
            found = Found.CUT_OFF
        then = BY_FINDING[found][who].then
        if then is Then.SIGN_OUT:
            return then, None, _why(found, row)
        if then is Then.RESUME and row is not None:
            return then, Started(_lesser(self.session(row), person), row, None), None
        if not start:
            return Then.NO_SESSION, None, None
        new_device = await self._is_new(device, person, own, known=known, marked_at=marked_at)
        return await self._start_once(
            device, person, (own, shared), now, new_device=new_device, source=source
        )

    async def _start_once(
        self,
        device: Device,
        person: Person,
        keys: tuple[Sequence[bytes], Sequence[bytes]],
        now: datetime,
        *,
        new_device: bool,
        source: Owner | None,
    ) -> tuple[Then, Started | None, str | None]:
        """A session of origin ``scope``: a new one, or the one that another request of the device
        has started in the same moment. `keys`: the device's, and those that others share.
        """
        own, shared = keys
        values, token, _ = self.new_rows.make(device, person, "scope", now, remember=True)
        row, ended, _, source_data = await self.store.insert_once(
            values, own, {**values, **of_other_devices(shared)}, shared, now=now, source=source
        )
        session, mine = self.session(row), row.id == token.sid
        if mine:
            await self._started(session, ended, new_device=new_device)
        # All sessions of the person may have been ended since the question above: whoever ends
        # them writes the cut-off first, so that one of the two sees the other.
        if is_cut_off(await self._cutoffs(person), person.proof, row.id):
            if mine:
                await self.end(row.id, "revoked")
            return Then.SIGN_OUT, None, "revoked"
        # The cookie of a session that many devices share would be good on each of them.
        alone = mine and row.live_device_key == values["live_device_key"]
        if (data := self.store.data) is not None:
            row = data.shown(row, source_data) if mine else await self.store.by_sid(row.id) or row
        return Then.START, Started(session, row, token if alone else None), None

    async def _is_over(self, person: Person) -> bool:
        """Whether the provider has ended the session there with which a person logs in."""
        if (name := session_name_of(person)) is None:  # as with nearly everybody
            return False
        cutoffs = (await self.store.find(Finding(name, str(person.app_id)))).cutoffs
        return is_cut_off(cutoffs, person.proof, None)

    async def end_if_over(self, sid: str, person: Person) -> bool:
        """End the session of a login if the provider has ended the one there; whether it has."""
        if over := await self._is_over(person):
            await self.end(sid, "revoked")
        return over

    async def _cutoffs(self, person: Person) -> list[Cutoff]:
        return (await self.store.find(_about(person))).cutoffs

    async def readmitted_at(self, person: Person) -> datetime | None:
        """When a person was last readmitted; None if never."""
        return readmitted_at(await self._cutoffs(person))

    async def note_proof(self, person: Person | None) -> None:
        """Remember a proof that is dated ahead of the clock: what cuts it off must be later."""
        now = self.settings.now()
        proof = None if person is None else person.proof
        if person is None or proof is None or proof <= now:
            return
        if any(one.proved_at and one.proved_at >= proof for one in await self._cutoffs(person)):
            return
        await self.store.cutoffs.change(
            str(person.id), person.app_id, lambda old, _: old.prove(proof), now=now
        )

    async def end_all(self, person_id: str, app_id: str | None, spared_sid: str | None) -> int:
        """End a person's sessions but one, and cut off what was proved before; how many."""
        now = self.settings.now()
        await self.store.cutoffs.change(
            person_id, app_id, lambda old, beside: old.cut(beside, now, spared_sid), now=now
        )
        return await self.report_batches(
            self.store.bulk.end_all(
                person_id, app_id, except_sid=spared_sid, reason="revoked", now=now
            )
        )

    async def readmit(self, person_id: str, app_id: str | None) -> None:
        """Let a person in again with whatever another layer says of them."""
        now = self.settings.now()
        await self.store.cutoffs.change(
            person_id, app_id, lambda old, beside: old.readmit(beside, now), now=now
        )

    async def newest(self, device: Device, person: Person) -> Row | None:
        """The newest live row of a person's device, whatever its origin."""
        keys = [
            key for one in (device, OTHER_DEVICES) for key in self.new_rows.device_keys(one, person)
        ]
        return await self.store.by_device(keys, live=self.settings.now())

    async def renew(
        self, row: Row, presented: bytes | None, proof: Mapping[str, Any]
    ) -> Started | None:
        """A new secret for a live session; None if it is dead.

        Args:
            row: as it was read.
            presented: the digest of the secret that the browser is known to hold.
            proof: what else is written: how and when the person was authenticated.
        """
        now = self.settings.now()
        token = Token(row.id, new_secret(self.random))
        values = checked(
            secret_hash=digest(token.secret),
            # The last one that the browser is known to hold, so that a lost answer strands nobody.
            previous_secret_hash=presented or row.secret_hash,
            secret_seen_at=None,
            renewed_at=now,
            last_seen_at=now,
        )
        renewed = await self.store.renew(row, {**values, **checked(**proof)}, now=now)
        if renewed is None:
            return None
        session, won = self.session(renewed), renewed.secret_hash == values["secret_hash"]
        if won:
            self.events.report("renewed", session)
            self.live_connections.end(row.id, but=renewed.secret_hash)
        return Started(session, renewed, token if won else None)

    async def end(
        self,
        sid: str,
        reason: str,
        *,
        person_id: str | None = None,
        app_id: str | None = None,
    ) -> tuple[Session | None, bool]:
        """End one session; it as it is then, and whether it ended now."""
        reason = checked(end_reason=reason)["end_reason"]
        now = self.settings.now()
        row, ended = await self.store.end(
            sid, reason=reason, now=now, person_id=person_id, app_id=app_id
        )
        if ended and row is not None:
            await self.ended([row])
        return (None if row is None else self.session(row)), ended

    async def holds(self, token: Token) -> bool:
        """Whether a token is still good: its session may have ended since it was made.

        Raises:
            SessionsUnavailable: if the database does not answer.
        """
        row = await self.store.by_sid(token.sid)
        live = row is not None and row.live(self.settings.now(), self.settings.terms)
        return live and row is not None and row.secret_hash == digest(token.secret)

    def touch(self, row: Row, *, seen: bool, now: datetime) -> None:
        """Note a use at a moment, for which nobody waits; a failure is counted and harms nothing.

        Args:
            row: as it was read.
            seen: whether the row's secret has come for the first time.
            now: the moment.
        """
        noted: Awaitable[object] = self.store.touch(
            Touch(row.id, now, row.secret_hash if seen else None)
        )
        if row.actor_sid is not None:  # the session that waits for this one is not idle
            noted = asyncio.gather(noted, self.store.touch(Touch(row.actor_sid, now, None)))

        async def listen() -> None:
            try:
                await noted
            except SessionsError as error:
                self.events.touch_failed(error)

        self.background.run(listen(), TOUCH)

    # --- reports ---------------------------------------------------------------------------

    def note_forged(self, values: Iterable[str], device: Callable[[], Device]) -> None:
        """Report the cookies that look like ours among these, which no key has signed.

        Args:
            values: of the cookies.
            device: reads where they came from.
        """
        if forged := sum(map(looks_like_ours, values)):
            self.events.forged_cookie(forged, lambda: self.address(device()))

    def address(self, device: Device) -> str | None:
        """Where a request comes from, as far as that may be told."""
        return address_to_store(device.ip_address, self.settings.store_ip)

    async def _living(self, sids: Sequence[str]) -> Mapping[str, Alive]:
        """Which of these sessions live, and what may be open on them."""
        now = self.settings.now()
        living = await self.store.living(sids, now=now)
        cut = now - self.proof_lifetime
        latest = microseconds(cut)
        return {
            sid: Alive(digest, cut if 0 < enforced_at(binding) <= latest else None)
            for sid, (digest, binding) in living.items()
        }

    async def _is_new(
        self,
        device: Device,
        person: Person,
        keys: Sequence[bytes],
        *,
        known: bool,
        marked_at: datetime | None,
    ) -> bool:
        # Asked where somebody is told: it costs look-ups, the fewer the better it is known.
        if known or not self.events.has_handler:
            return False
        whose = (str(person.id), str(person.app_id))
        ended = await self.store.last_ended(*whose, limit=_LOOKED_AT)
        if marked_at is not None and not is_cut_off(await self._cutoffs(person), marked_at, None):
            thrown_out = filter(was_thrown_out, ended)
            if not any(row.started_at.replace(microsecond=0) == marked_at for row in thrown_out):
                return False
        if (address := self.address(device)) is not None:
            live = await self.store.listed(
                *whose, live=self.settings.now(), limit=_LOOKED_AT, before=None
            )
            # The same browser, whatever its version.
            mine = (address, family(device.user_agent))
            rows = [
                row for row in (*live, *ended) if (row.ip_address, family(row.user_agent)) == mine
            ]
            if rows:
                return not _vouch(rows)
        row = await self.store.by_device(keys)
        return row is None or not vouches(row)

    async def _started(self, session: Session, ended: Iterable[Row], *, new_device: bool) -> None:
        await self.ended(ended)
        self.events.report("started", session, new_device=new_device)

    async def report_batches(self, batches: AsyncIterator[Sequence[Row]]) -> int:
        """Tell of the rows that end in batches; how many. Once begun it goes on to the last, even
        if nobody waits for it any more.
        """

        async def work() -> int:
            count = 0
            async for rows in batches:
                count += len(rows)
                await self.report_ended(rows)
            return count

        return await self.background.complete(work())

    async def report_ended(self, rows: Sequence[Row]) -> None:
        """Tell of many ended sessions, so that other requests come in between."""
        async for some in slices(rows):
            await self.ended(some)

    async def ended(self, rows: Iterable[Row]) -> None:
        """Tell of ended sessions, end what is open on them in this process, and end those that
        cannot go on without them.
        """
        for row in rows:
            self.tell_ended(row)
            if row.actor_sid is not None or row.waits_for is not None:
                await end_other(self, row)

    def tell_ended(self, row: Row) -> None:
        """Tell of an ended session, and end what is open on it in this process."""
        if row.end_reason == "reuse":
            self.events.report("reuse_detected", self.session(row))
        self.events.report("ended", self.session(row))
        self.live_connections.end(row.id)


def unproved(session: Session) -> Session:
    """The session as whoever has a superseded secret sees it: nothing has been proved."""
    return replace(session, authenticated_at=None, acr=None, amr=())


def _about(person: Person) -> Finding:
    """Asks for what was cut off of a person, by whoever has done it."""
    return Finding(str(person.id), str(person.app_id), names=names_of(person))


def _sid(person: Person) -> str | None:
    """The session that a person's token names, if it can be one."""
    sid = person.sid
    return sid if isinstance(sid, str) and SID_PATTERN.fullmatch(sid) else None


def _why(found: Found, row: Row | None) -> str:
    """Why a person is signed out."""
    return "revoked" if row is None or found is Found.CUT_OFF else row.reason()


def _lesser(session: Session, person: Person) -> Session:
    """The session as a person sees it who came without its cookie: what they have proved now may be
    less than what was proved when it started. Of two different `acr` nobody knows the order.
    """
    proofs = (session.authenticated_at, person.authenticated_at)
    return replace(
        session,
        authenticated_at=None if None in proofs else min(filter(None, proofs)),
        acr=session.acr if session.acr == person.acr else None,
        amr=tuple(method for method in session.amr if method in person.amr),
    )


def _vouch(rows: Sequence[Row]) -> bool:
    """Whether some rows of one browser vouch for it: by one that is live, or that has ended after
    the last one was thrown out. What was over before may have been of the same stranger.
    """
    thrown_out = [row.ended_at for row in rows if row.ended_at and was_thrown_out(row)]
    return any(
        vouches(row) and (row.ended_at is None or row.ended_at > max(thrown_out, default=_NEVER))
        for row in rows
    )


def _public(row: Row, now: datetime, terms: Terms) -> Session:
    session = row.session(terms, now)
    if session.ended_at is None and not session.live(now):
        up = row.deadline(terms)
        return replace(session, ended_at=up, end_reason="expired")
    return session
