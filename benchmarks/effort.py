"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Effort:
    """Rounds, rows and seconds.

    Args:
        name: what it is called.
        rounds: of each measurement.
        seconds: for each contender in each round.
        sessions: rows in the table, each with its cookie.
        levels: requests at once, side by side; 1 and 64 are among them.
        peer_sessions: logins at each peer, of which the cookies are drawn.
        growth: rows of the tables that are compared.
        dead: one row of so many has ended long ago, for `purge`.
        many: rows of one person, and of a table that grows while it is in use.
        requests: while the memory is watched.
        socket_seconds: for each server in each round.
        visitors: beside the sessions; none if they are not measured.
    """

    name: str
    rounds: int
    seconds: float
    sessions: int
    levels: tuple[int, ...]
    peer_sessions: int
    growth: tuple[int, ...]
    dead: int
    many: int
    requests: int
    socket_seconds: int
    visitors: int


FULL = Effort(
    name="full",
    rounds=11,
    seconds=0.5,
    sessions=20_000,
    levels=(1, 4, 16, 64, 256),
    peer_sessions=20_000,
    growth=(10_000, 100_000, 1_000_000, 10_000_000),
    dead=10,
    many=100_000,
    requests=1_000_000,
    socket_seconds=2,
    visitors=1_000_000,
)
QUICK = Effort(
    name="quick",
    rounds=3,
    seconds=0.1,
    sessions=5_000,
    levels=(1, 64),
    peer_sessions=200,
    growth=(10_000, 50_000),
    dead=10,
    many=2_000,
    requests=20_000,
    socket_seconds=1,
    visitors=0,
)
