"""A MariaDB Galera cluster behind HAProxy, on loopback.

python -m tests.cluster.galera    starts one, says where it is, and ends it at Ctrl-C.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.haproxy import HAProxy, listen, mysql_check
from tests.servers.mariadb import CHECK_USER, Galera, MariaDBServer
from tests.servers.process import LOOPBACK, free_port, together, until_interrupted, wait_until

_log = logging.getLogger(__name__)

#: Of the node that the others are copies of; nothing that belongs to one node alone.
_NOT_COPIED = shutil.ignore_patterns("galera.cache", "gvwstate.dat", "ib_buffer_pool")


class GaleraCluster:
    """Three nodes (or more), of which HAProxy gives out `url` and `balanced_url`.

    `url` leads to the first node, and to the next while that one is down; with `failback`, the
    connections move back when it returns (they are cut), else they stay where they are.
    `balanced_url` leads to all nodes in turn. In either case `sync_wait=7` makes a statement see
    what any other has committed before it; with 0, MariaDB's default, a node may answer from the
    past: while it has not yet applied what it was sent, and for the questions that reached it
    during a `pause` (measured: 48 % of the reads directly after a commit elsewhere, and 100 %).

    A majority of the nodes *last seen* keeps the cluster going: of three, one may be killed or
    paused; the next only when the first is back.
    """

    def __init__(
        self,
        size: int = 3,
        directory: Path | None = None,
        *,
        sync_wait: int = 7,
        suspect: float = 1.5,
        failback: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        members = [
            Galera(f"node{number}", sync_wait=sync_wait, suspect=suspect)
            for number in range(1, size + 1)
        ]
        for member in members:
            member.members = members
            # The last first: the node that serves as `url` shall be copied from the least.
            others = [other.name for other in members[::-1] if other is not member]
            member.donors = ",".join(others) + ","
        self.nodes = [
            MariaDBServer(directory=directory, settings=settings, galera=member)
            for member in members
        ]
        self.balanced_port = free_port()
        port = free_port()
        self.haproxy = HAProxy(self._haproxy_sections(port, failback=failback), port, directory)

    def _haproxy_sections(self, port: int, *, failback: bool) -> str:
        writer, balanced = "", "    balance roundrobin\n"
        if not failback:  # all clients stick to the server that was used last
            writer += "    stick-table type integer size 1\n    stick on int(1)\n"
        for number, node in enumerate(self.nodes):
            name = self.name(number)
            writer += f"    server {name} {LOOPBACK}:{node.port} check"
            writer += " backup" if number else ""
            writer += " on-marked-up shutdown-backup-sessions" if failback and not number else ""
            writer += "\n"
            balanced += f"    server {name} {LOOPBACK}:{node.port} track writer/{name}\n"
        return listen("writer", port, mysql_check(CHECK_USER) + writer) + listen(
            "balanced", self.balanced_port, balanced
        )

    @property
    def url(self) -> str:
        """Through HAProxy, to one node at a time."""
        return self.url_at(self.haproxy.port)

    @property
    def balanced_url(self) -> str:
        """Through HAProxy, to all nodes in turn."""
        return self.url_at(self.balanced_port)

    def url_at(self, port: int, scheme: str = "mysql") -> str:
        """A URL with another port (`haproxy.port`, `balanced_port`, a node's), another driver."""
        return self.nodes[0].url_at(port, scheme)

    def name(self, number: int) -> str:
        """What the group and HAProxy call a node."""
        galera = self.nodes[number].galera
        assert galera is not None
        return galera.name

    async def __aenter__(self) -> Self:
        try:
            await self._init()
            await together(*(node.start() for node in self.nodes))
            await self.wait_in_step()
            await self.haproxy.init()
            await self.haproxy.start()
            await self.wait_up()
        except BaseException:
            self.destroy()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.destroy()

    def destroy(self) -> None:
        """End all processes at once and remove their files."""
        for server in (self.haproxy, *self.nodes):
            server.destroy()

    async def _init(self) -> None:
        """Make all nodes as after a power cut of a cluster that was in step.

        So they find together by themselves (`pc.recovery`), in two seconds and without a copy of
        the data by rsync, which would take six for each.
        """
        first, *others = self.nodes
        await first.init()
        await first.start("--wsrep-new-cluster")  # gives the cluster its identity
        await first.stop()
        for node in others:
            node.make_directory()
            await asyncio.to_thread(
                shutil.copytree, first.data, node.data, ignore=_NOT_COPIED, dirs_exist_ok=True
            )
            node.own(node.data, *node.data.rglob("*"))
        for name in ("galera.cache", "gvwstate.dat"):
            (first.data / name).unlink(missing_ok=True)
        ids = sorted(str(uuid.uuid1()) for _ in self.nodes)
        for node, own in zip(self.nodes, ids, strict=True):
            view = node.data / "gvwstate.dat"
            view.write_text(
                f"my_uuid: {own}\n#vwbeg\nview_id: 3 {ids[0]} 3\nbootstrap: 0\n"
                + "".join(f"member: {member} 0\n" for member in ids)
                + "#vwend\n"
            )
            node.own(view)

    async def start_all(self) -> float:
        """After all nodes have been killed: start them; they find together; the seconds."""
        begun = asyncio.get_running_loop().time()
        await together(*(node.rejoin() for node in self.nodes))
        await self.wait_in_step()
        await self.wait_up()
        return asyncio.get_running_loop().time() - begun

    async def wait_in_step(self, size: int | None = None) -> float:
        """Return when so many nodes (default: all) form the cluster; the seconds that took."""
        expected = len(self.nodes) if size is None else size

        async def in_step() -> bool:
            ready = [node for node in self.nodes if node.awake and await node.is_ready()]
            sizes = [(await node.status())["wsrep_cluster_size"] for node in ready]
            return sizes == [str(expected)] * expected

        return await wait_until(in_step, f"a cluster of {expected} nodes", interval=0.05)

    async def wait_up(self, *numbers: int) -> float:
        """Return when HAProxy gives connections to these nodes (default: all); the seconds."""
        return sum(
            [
                await self.haproxy.wait_state(f"writer/{self.name(number)}", "UP")
                for number in numbers or range(len(self.nodes))
            ]
        )

    async def wait_down(self, number: int) -> float:
        """Return when HAProxy has given the node up; the seconds that took."""
        return await self.haproxy.wait_state(f"writer/{self.name(number)}", "DOWN")

    async def is_down(self) -> bool:
        """Whether HAProxy has given up all nodes."""
        return (await self.haproxy.states())["writer/BACKEND"] == "DOWN"

    async def kill(self, number: int) -> None:
        """SIGKILL a node."""
        await self.nodes[number].kill9()

    def pause(self, number: int) -> None:
        """SIGSTOP a node: the others go on without it after `suspect` seconds."""
        self.nodes[number].pause()

    def unpause(self, number: int) -> None:
        """SIGCONT a node: it finds out what it has missed, and joins again by itself."""
        self.nodes[number].unpause()

    async def rejoin(self, number: int) -> float:
        """Start a node that was killed or stopped; return when it gets traffic; the seconds.

        It is started when the others have noticed that it is gone. A node that comes back earlier
        unsettles the group: it takes twice as long, and a survivor may refuse statements (1205).
        """
        begun = asyncio.get_running_loop().time()
        others = [node for node in self.nodes if node.awake]

        async def forgotten() -> bool:
            sizes = [int((await node.status())["wsrep_cluster_size"]) for node in others]
            return all(size <= len(others) for size in sizes)

        await wait_until(forgotten, f"{self.name(number)} is forgotten", interval=0.05)
        await self.nodes[number].rejoin()
        await self.wait_up(number)
        return asyncio.get_running_loop().time() - begun


async def _main() -> None:
    async with GaleraCluster() as cluster:
        _log.info("one node at a time: %s", cluster.url)
        _log.info("all nodes in turn:  %s", cluster.balanced_url)
        for node in cluster.nodes:
            _log.info("%s, log %s/log", node, node.directory)
        await until_interrupted()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(_main())
