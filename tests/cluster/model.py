"""What clients know of their sessions, and what answers may therefore say.

Times are those of one clock that only goes forward. An end counts from the moment when it was
answered; until then, from the moment when it was asked for, the session may be live or over. An
end that was not answered (503) stays in doubt for good: whoever asked asks again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

NEVER = math.inf


@dataclass(eq=False)
class Told:
    """A session whose login was answered."""

    sid: str
    person: str
    #: When the login was asked for, and when it was answered.
    asked: float
    answered: float
    #: Reasons for which it may have ended, and since when.
    may: dict[str, float] = field(default_factory=dict)
    #: Since when it must be over.
    over: float = NEVER

    def may_end(self, reason: str, since: float) -> None:
        """Somebody has asked for its end."""
        self.may[reason] = min(since, self.may.get(reason, NEVER))

    def must_be_over(self, since: float) -> None:
        """An end has been answered, or an answer has shown it ended."""
        self.over = min(since, self.over)

    @property
    def certain(self) -> bool:
        """Whether it must be live."""
        return not self.may


@dataclass
class Doubt:
    """An end of all of a person's sessions: those told, and those whose login is under way."""

    reason: str
    asked: float
    answered: float = NEVER


class Model:
    """The sessions told so far, and the answers that were wrong.

    Args:
        cap: live sessions that a person may have.
        keep: seconds for which what has ended is kept, at least; then its row may be gone.
    """

    def __init__(self, cap: int, keep: float = NEVER) -> None:
        self._cap = cap
        self._keep = keep
        self.told: dict[str, Told] = {}
        self._of: dict[str, list[Told]] = {}
        self._doubts: dict[str, list[Doubt]] = {}
        #: Logins that were asked for, by person.
        self._logins: Counter[str] = Counter()
        #: Sessions that must be live and were not; ended ones that were live.
        self.lost: set[str] = set()
        self.revived: set[str] = set()
        #: Answers that said "logged out" to a live session.
        self.false_logouts = 0
        #: All that was wrong, in words.
        self.faults: list[str] = []

    def wrong(self, fault: str) -> None:
        """Note what must not be."""
        self.faults.append(fault)

    # --- logins and ends -----------------------------------------------------------------------

    def asks_login(self, person: str, now: float) -> None:
        """A login is under way: with it the person may have too many sessions."""
        self._logins[person] += 1
        if self._at_most(person, now) > self._cap:
            for told in self._of.get(person, ()):
                told.may_end("limit", now)

    def login_answered(self, sid: str, person: str, asked: float, now: float) -> Told:
        """A cookie has reached its browser."""
        if sid in self.told:
            self.wrong(f"{sid} was given to two logins")
        told = self.told[sid] = Told(sid, person, asked, now)
        self._of.setdefault(person, []).append(told)
        for doubt in self._doubts.get(person, ()):
            if doubt.answered >= asked:
                told.may_end(doubt.reason, doubt.asked)
        if self._at_most(person, asked) > self._cap:
            told.may_end("limit", asked)
        return told

    def _at_most(self, person: str, since: float) -> int:
        """How many live sessions the person may have had at some moment since."""
        over = sum(told.over < since for told in self._of.get(person, ()))
        return self._logins[person] - over

    def may_be_undelivered(self, person: str, since: float) -> bool:
        """Whether a login may have been ended before its answer was sent."""
        return self._at_most(person, since) > self._cap or any(
            doubt.answered >= since for doubt in self._doubts.get(person, ())
        )

    def asks_end_of_all(self, person: str, reason: str, now: float) -> tuple[list[Told], Doubt]:
        """All of a person's sessions are to end. The told ones, and what tells when it is done."""
        doubt = Doubt(reason, now)
        self._doubts.setdefault(person, []).append(doubt)
        mine = list(self._of.get(person, ()))
        for told in mine:
            told.may_end(reason, now)
        return mine, doubt

    def end_of_all_answered(self, mine: Iterable[Told], doubt: Doubt, now: float) -> None:
        """So they are over."""
        doubt.answered = now
        for told in mine:
            told.must_be_over(now)

    # --- answers -------------------------------------------------------------------------------

    def saw(self, told: Told, *, live: bool, reason: str | None, asked: float, now: float) -> None:
        """A request that carried its cookie was answered."""
        if live:
            if told.over < asked:
                self.revived.add(told.sid)
                self.wrong(f"{told} was live {asked - told.over:.3f} s after its end")
            return
        if reason is None and self._may_be_purged(told, now):
            return
        if reason not in told.may or told.may[reason] > now:
            self.lost.add(told.sid)
            self.false_logouts += 1
            self.wrong(f"{told} was over at {now:.3f} ({reason})")
            return
        told.must_be_over(now)

    def _may_be_purged(self, told: Told, now: float) -> bool:
        return any(since + self._keep <= now for since in told.may.values())

    def saw_list(self, person: str, sids: Collection[str], *, asked: float, now: float) -> None:
        """A person's live sessions were listed."""
        for told in self._of.get(person, ()):
            if told.sid in sids:
                self.saw(told, live=True, reason=None, asked=asked, now=now)
            elif told.answered < asked and not any(since <= now for since in told.may.values()):
                self.lost.add(told.sid)
                self.wrong(f"{told} was in no list at {now:.3f}")

    # --- when nothing is under way any more ----------------------------------------------------

    @property
    def people(self) -> list[str]:
        """All who were told of a session."""
        return list(self._of)

    def saw_row(self, told: Told, end_reason: str | None, *, there: bool, now: float) -> None:
        """A session's row was read."""
        if not there and self._may_be_purged(told, now):
            return
        if not there:
            self.lost.add(told.sid)
            self.wrong(f"{told} has no row")
        else:
            live = end_reason is None
            self.saw(told, live=live, reason=end_reason, asked=NEVER, now=NEVER)

    def saw_end(self, sids: Collection[str], person: str) -> None:
        """All live sessions of a person were listed."""
        untold = set(sids) - self.told.keys()
        doubtful = self._logins[person] - len(self._of[person])
        if len(untold) > doubtful:
            self.wrong(f"{untold} of {person}, of whose logins {doubtful} were in doubt")
        if len(sids) > self._cap:
            self.wrong(f"{person} has {len(sids)} sessions")
