"""The progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)


class RichBar:
    """One bar for all, and one for what is under way; a line for what is done."""

    def __init__(self, parts: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._all = self._progress.add_task("", total=parts)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    @contextmanager
    def part(self, what: str) -> Iterator[None]:
        """One of the parts."""
        self._progress.update(self._all, description=what)
        start = perf_counter()
        yield
        self._progress.advance(self._all)
        took = perf_counter() - start
        self._progress.console.print(f"{what}: {took:.0f} s", highlight=False)

    @contextmanager
    def step(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A part of a part; gives a function that is told how much is done."""
        task = self._progress.add_task(f"  {what}", total=total)
        try:
            yield lambda done: self._progress.update(task, completed=done)
        finally:
            self._progress.remove_task(task)
