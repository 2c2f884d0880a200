"""Processes of the tests' own: each has a directory, a log and a pid, and is ended by that pid."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

LOOPBACK = "127.0.0.1"

#: What a command or a server gets of this process's environment: no PGHOST, no MYSQL_PWD.
ENVIRONMENT = {
    "PATH": f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
}


class ServerError(Exception):
    """A server or a command did not do what it was started for; the message has its log."""


def find_binary(name: str, package: str, *directories: str, given: str | None = None) -> str:
    """The path of a program: the newest of `directories` (globs), else of PATH and the sbins.

    Where the environment variable `given` names the folder of an installation, it is taken from
    there or not at all: a test that silently ran on another version would prove nothing.
    """
    if given is not None and (folder := os.environ.get(given)):
        program = shutil.which(name, path=f"{folder}/bin:{folder}/sbin")
        if program is None:
            raise ServerError(f"{given}={folder} has no {name} in its bin or sbin")
        return program

    def version(path: Path) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", str(path.parent))]

    for pattern in directories:
        found = sorted(Path("/").glob(f"{pattern.lstrip('/')}/{name}"), key=version)
        if found:
            return str(found[-1])
    path = shutil.which(name, path=ENVIRONMENT["PATH"])
    if path is None:
        raise ServerError(f"{name} is not installed (on Debian: apt-get install {package})")
    return path


#: How many ports a process of the tests has to itself.
_SHARE = 200


def _claim_ports() -> list[int]:
    """Ports that no other process of the tests gets, as long as this one lives.

    They are below those that the kernel gives to clients.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    shares = list(range(10_000, max(lowest, 12_000) - _SHARE, _SHARE))
    random.shuffle(shares)
    for first in shares:
        with socket.socket(socket.AF_UNIX) as claim, contextlib.suppress(OSError):
            claim.bind(f"\0asgi-sessions-ports-{first}")  # once; it goes with the process
            claim.detach()
            return random.sample(range(first, first + _SHARE), _SHARE)
    raise ServerError("no free ports")


#: Claimed here, since tests count the files that are open.
_ports = _claim_ports()


def free_port() -> int:
    """A loopback port that nobody listens on. It stays free while its server is down, and is handed
    out only once.
    """
    while _ports:
        port = _ports.pop()
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise ServerError("no free port")


def as_account(account: str, death_signal: signal.Signals = signal.SIGKILL) -> list[str]:
    """The start of a command that runs as `account`, if we are root, and ends when we die.

    The kernel sends that signal when the *thread* ends that started the process, so only the main
    thread asks for it.
    """
    prefix = [find_binary("setpriv", "util-linux")]
    if threading.current_thread() is threading.main_thread():
        prefix += [f"--pdeathsig={death_signal.name.removeprefix('SIG')}"]
    if os.geteuid() == 0:
        try:
            pwd.getpwnam(account)
        except KeyError:
            raise ServerError(f"there is no account {account}: is its package installed?") from None
        prefix += [f"--reuid={account}", f"--regid={account}", "--init-groups"]
    return [*prefix, "--"] if len(prefix) > 1 else []


async def run(
    *command: str,
    account: str | None = None,
    given: str | None = None,
    timeout: float = 60,  # noqa: ASYNC109 -- the command is killed, not only left
) -> str:
    """Run a command to its end; its standard output. The exception has both outputs."""
    process = await asyncio.create_subprocess_exec(
        *(as_account(account) if account else []),
        *command,
        stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        cwd="/",  # any account may be there
    )
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(None if given is None else given.encode())
    except TimeoutError:
        raise ServerError(f"{' '.join(command)}: took more than {timeout} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        output = (out + err).decode(errors="replace").strip()
        raise ServerError(f"{' '.join(command)}: exit status {process.returncode}: {output}")
    return out.decode()


async def wait_until(
    condition: Callable[[], Awaitable[bool]],
    what: str,
    *,
    timeout: float = 30,  # noqa: ASYNC109 -- says what was waited for
    interval: float = 0.02,
) -> float:
    """Ask until it is so; the seconds that took."""
    begun = time.monotonic()
    while not await condition():
        if time.monotonic() - begun > timeout:
            raise ServerError(f"{what}: not so after {timeout} s")
        await asyncio.sleep(interval)
    return time.monotonic() - begun


def descendants(pid: int) -> list[int]:
    """The processes that this one started, and theirs."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (name, which may hold anything) state ppid ...
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        more = children.get(waiting.pop(), [])
        found += more
        waiting += more
    return found


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


class Server:
    """A server process: `async with` initialises and starts it, and leaves nothing behind.

    Its files are in a directory of its own, made inside of `directory` (default: the system's for
    temporary files). The server's account must be able to get there: pytest's `tmp_path` is closed
    to others than its owner.
    """

    #: Whom the server runs as if we are root; else it runs as we do.
    account: ClassVar[str]
    #: The way to shut down without waiting for clients.
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    #: How to end it when its data are not needed any more.
    end_signal: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(self, port: int | None = None, directory: Path | None = None) -> None:
        self.port = free_port() if port is None else port
        self._parent = directory
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.running else "not running"
        return f"<{type(self).__name__} {LOOPBACK}:{self.port}, {state}>"

    # What a kind of server says of itself.

    async def init(self) -> None:
        """Make what the first start needs."""
        self.make_directory()

    def command(self) -> list[str]:
        """The program and its arguments; it stays in the foreground."""
        raise NotImplementedError

    async def is_ready(self) -> bool:
        """Whether it serves."""
        raise NotImplementedError

    # What all have in common.

    @property
    def directory(self) -> Path:
        """Where its files are."""
        if self._directory is None:
            raise ServerError(f"{self!r} has not been initialised")
        return self._directory

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.directory / "data"

    @property
    def running(self) -> bool:
        """Whether the process is there (stopped by `pause`, too)."""
        return self._process is not None and self._process.poll() is None

    @property
    def awake(self) -> bool:
        """Whether it runs and has not been paused."""
        return self.running and not self._paused

    @property
    def pid(self) -> int:
        """The process's id."""
        if self._process is None or not self.running:
            raise ServerError(f"{type(self).__name__} on port {self.port} is not running")
        return self._process.pid

    def make_directory(self) -> Path:
        """The directory, and an empty one for the data in it, both the account's."""
        if self._directory is None:
            name = f"asgi-sessions-{type(self).__name__.lower()}-"
            self._directory = Path(tempfile.mkdtemp(prefix=name, dir=self._parent))
            _made.add(self)
            self.data.mkdir(mode=0o700)
            self.own(self._directory, self.data)
        return self._directory

    async def copy_made(self, make: Callable[[Path], Awaitable[None]], *settings: str) -> None:
        """Fill the data directory with a copy of what `make` puts into an empty one.

        It is called once for these settings, as it takes seconds; copying takes a fraction of one.
        """
        key = (type(self).account, *settings)
        if key not in _templates:
            place = Path(tempfile.mkdtemp(prefix="asgi-sessions-template-"))
            _made_places.append(place)
            template = place / "data"
            template.mkdir(mode=0o700)
            self.own(place, template)
            await make(template)
            _templates[key] = template
        command = ("cp", "--archive", "--no-target-directory", str(_templates[key]), str(self.data))
        await run(*command, account=self.account)

    def own(self, *paths: Path) -> None:
        """Give files to the account, if we are root."""
        if os.geteuid() == 0:
            account = pwd.getpwnam(self.account)
            for path in paths:
                os.chown(path, account.pw_uid, account.pw_gid)

    def log(self, lines: int = 40) -> str:
        """The end of what it has logged."""
        try:
            text = (self.directory / "log").read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def spawn(self, *options: str) -> None:
        """Start the process, and wait for nothing."""
        if self.running:
            raise ServerError(f"{self!r} runs already")
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*as_account(self.account, self.end_signal), *self.command(), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=ENVIRONMENT,
                cwd="/",
                start_new_session=True,  # a Ctrl-C is ours: we end it in our order
            )
        self._paused = False

    async def start(self, *options: str) -> None:
        """Start the process; return when it serves."""
        self.spawn(*options)
        await self.wait_ready()

    async def wait_ready(self, timeout: float = 60) -> None:  # noqa: ASYNC109 -- has the log
        """Return when it serves."""

        async def ready() -> bool:
            if not self.running:
                status = self._process and self._process.returncode
                raise ServerError(f"{self!r} ended with status {status}:\n{self.log()}")
            return await self.is_ready()

        try:
            await wait_until(ready, f"{self!r} serves", timeout=timeout)
        except ServerError as error:
            if self.running:
                raise ServerError(f"{error}:\n{self.log()}") from None
            raise

    async def stop(self, timeout: float = 30) -> None:  # noqa: ASYNC109 -- then killed
        """Shut it down as its operator would, without waiting for its clients."""
        if self.running:
            self.unpause()
            pid = self.pid
            _signal(pid, self.stop_signal)
            try:
                await self._gone([pid], timeout)
            except ServerError as error:
                await self.kill9()
                raise ServerError(f"{error}:\n{self.log()}") from None

    async def kill9(self) -> None:
        """SIGKILL for it and all that it has started: a crash."""
        killed = self._kill()
        await self._gone(killed, 10)

    async def restart(self) -> None:
        """Shut it down and start it anew, on the same data and port."""
        await self.stop()
        await self.start()

    def pause(self) -> None:
        """SIGSTOP for it and all that it has started: connections stay open, nobody answers."""
        self._paused = True
        _signal(self.pid, signal.SIGSTOP)  # first, so that it starts no more
        for pid in descendants(self.pid):
            _signal(pid, signal.SIGSTOP)

    def unpause(self) -> None:
        """SIGCONT after `pause`."""
        if self._paused and self.running:
            self._paused = False
            for pid in [*descendants(self.pid), self.pid]:
                _signal(pid, signal.SIGCONT)

    async def __aenter__(self) -> Self:
        try:
            await self.init()
            await self.start()
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
        """End the process at once and remove its files; may be called twice, and at exit."""
        process = self._process
        if process is not None and process.poll() is None:
            self.unpause()
            started = descendants(process.pid)
            if self.end_signal is signal.SIGKILL:
                self._kill()
            else:
                process.send_signal(self.end_signal)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                self._kill()
                process.wait(5)
            for pid in started:  # they end with it, or now
                _signal(pid, signal.SIGKILL)
        self._process = None
        if self._directory is not None:
            self.clean_up()
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
        _made.discard(self)

    def clean_up(self) -> None:
        """What is left behind outside of the directory, when the process is gone."""

    def _kill(self) -> list[int]:
        """SIGKILL, children too; the pids."""
        if not self.running:
            return []
        _signal(self.pid, signal.SIGSTOP)  # so that it starts no more
        pids = [self.pid, *descendants(self.pid)]
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        return pids

    async def _gone(self, pids: Iterable[int], timeout: float) -> None:  # noqa: ASYNC109
        async def gone() -> bool:
            return not self.running and not any(is_running(pid) for pid in pids)

        await wait_until(gone, f"{self!r} has ended", timeout=timeout, interval=0.01)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


_made: set[Server] = set()
#: Data directories to copy, by account and settings; the directories that they are in.
_templates: dict[tuple[str, ...], Path] = {}
_made_places: list[Path] = []
_owner = os.getpid()


@atexit.register
def _destroy_all() -> None:
    """What no `async with` got to: an exception in a script, an interpreter that gives up."""
    if os.getpid() == _owner:  # not in a fork
        for server in list(_made):
            server.destroy()
        for place in _made_places:
            shutil.rmtree(place, ignore_errors=True)


def options(settings: Mapping[str, str], *, prefix: str = "--") -> list[str]:
    """Settings as arguments of a command."""
    return [f"{prefix}{name}={value}" for name, value in settings.items()]


async def together(*steps: Coroutine[object, object, object]) -> None:
    """All of them at once; the first that fails ends the others."""
    async with asyncio.TaskGroup() as group:
        for step in steps:
            group.create_task(step)


async def until_interrupted() -> None:
    """For scripts: return at SIGINT or SIGTERM."""
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    await over.wait()
