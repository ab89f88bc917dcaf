"""What a command says in a terminal: lines, refusals, tables, and how far it is.

Nothing here imports torch: the first line has to appear before torch is loaded.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from rich.table import Table

# Progress and talk go to stderr, so that --json leaves stdout to machines.
talk = Console(stderr=True)


def say(text: str) -> None:
    """Print a line, never wrapped."""
    talk.print(text, soft_wrap=True, markup=False, highlight=False)


def show_table(table: Table) -> None:
    """Print a table as wide as it is, however narrow the terminal: a row that is cut short tells nothing."""
    console = Console()
    console.width = max(console.width, Console(width=1000).measure(table).maximum)
    console.print(table)


@contextmanager
def refusals() -> Iterator[None]:
    """A ``ValueError`` ends the command with its message in one line, in place of a traceback."""
    try:
        yield
    except ValueError as error:
        say(f"selective-sigma: {error}")
        raise typer.Exit(2) from None


@contextmanager
def interruptions(stopped: Callable[[], str] = lambda: "Stopped.") -> Iterator[None]:
    """Ctrl-C ends the command with one line and the shell's own exit code.

    So does a second Ctrl-C while the work that the first one interrupted is put away.
    """

    def leave(*_: object) -> NoReturn:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # A bar that is still there has hidden it.
        talk.show_cursor()
        say(stopped())
        os._exit(130)

    def interrupt(*_: object) -> NoReturn:
        signal.signal(signal.SIGINT, leave)
        raise KeyboardInterrupt

    try:
        signal.signal(signal.SIGINT, interrupt)
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        say(stopped())
        raise typer.Exit(130) from None


class ProgressBar:
    """How far a command is: a bar in a terminal; in a pipe a line at each beginning and each step.

    A context, in which ``begin`` names what is done now and ``advance`` counts.
    """

    def __init__(self) -> None:
        count = MofNCompleteColumn(), TimeElapsedColumn()
        columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), *count
        self._bar = Progress(*columns, console=talk, disable=not talk.is_terminal)
        self._task = self._bar.add_task("", total=None)
        self._what, self._total, self._done, self._began = "", None, 0, time.monotonic()

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, what: str, total: int | None = None) -> None:
        """``total`` steps of ``what`` come now; None: their number is not known."""
        self._what, self._total, self._done = what, total, 0
        self._bar.update(self._task, description=what, total=total, completed=0)
        self._tell(what)

    def advance(self) -> None:
        """One more step is done."""
        self._done += 1
        # A search may take more steps than were counted on.
        if self._total is not None and self._done > self._total:
            self._total = self._done
        self._bar.update(self._task, completed=self._done, total=self._total)
        of = "" if self._total is None else f" of {self._total}"
        self._tell(f"{self._what}: {self._done}{of}, {time.monotonic() - self._began:.0f} s")

    def complete(self) -> None:
        """No more steps will come, though more had been counted on."""
        self._bar.update(self._task, completed=self._done, total=self._done)

    def _tell(self, text: str) -> None:
        if not talk.is_terminal:
            say(text)
