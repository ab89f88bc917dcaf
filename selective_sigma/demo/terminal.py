"""What a command shows in a terminal: lines, refusals, tables and progress.

Nothing here imports torch, since the first line has to appear before torch is loaded.
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

stderr_console = Console(stderr=True)
"""For progress and messages, so that --json leaves stdout to machines."""


def say(text: str) -> None:
    """Print a line, never wrapped."""
    stderr_console.print(text, soft_wrap=True, markup=False, highlight=False)


def show_table(table: Table) -> None:
    """Print a table in its full width, even if the terminal is narrower: a row that is cut short says nothing."""
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
        # A progress bar has hidden the cursor.
        stderr_console.show_cursor()
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
    """The progress of a command: a bar in a terminal, and in a pipe a line at each beginning and each step.

    It is a context manager. Within it, ``begin`` names a task and ``advance`` counts its steps.
    """

    def __init__(self) -> None:
        count = MofNCompleteColumn(), TimeElapsedColumn()
        columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), *count
        self._bar = Progress(*columns, console=stderr_console, disable=not stderr_console.is_terminal)
        self._task = self._bar.add_task("", total=None)
        self._description, self._total, self._finished_steps, self._began = "", None, 0, time.monotonic()

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, description: str, total: int | None = None) -> None:
        """Begin a task of ``total`` steps; None if their number is not known."""
        self._description, self._total, self._finished_steps = description, total, 0
        self._bar.update(self._task, description=description, total=total, completed=0)
        self._say_in_pipe(description)

    def advance(self) -> None:
        """Count one more step."""
        self._finished_steps += 1
        # A search may take more steps than expected.
        if self._total is not None and self._finished_steps > self._total:
            self._total = self._finished_steps
        self._bar.update(self._task, completed=self._finished_steps, total=self._total)
        of_total = "" if self._total is None else f" of {self._total}"
        self._say_in_pipe(
            f"{self._description}: {self._finished_steps}{of_total}, {time.monotonic() - self._began:.0f} s"
        )

    def complete(self) -> None:
        """End the task, even if it had fewer steps than expected."""
        self._bar.update(self._task, completed=self._finished_steps, total=self._finished_steps)

    def _say_in_pipe(self, text: str) -> None:
        if not stderr_console.is_terminal:
            say(text)
