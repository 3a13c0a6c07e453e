"""How far a long work is: a bar on a terminal, a line per step elsewhere, always on stderr. Knows no verb."""

# ruff: noqa: PLC0415 - slow imports stay inside, so that --help is quick

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from methodhub.cli.options import note

Report = Callable[[int, int | None, str], None]
"""Called with how many are done, of how many (None: not known), and a word about them."""

_STEPS = 20


@contextlib.contextmanager
def progress(title: str, *, quiet: bool = False) -> Iterator[Report]:
    if quiet:
        yield lambda done, total, text: None
    elif sys.stderr.isatty():
        yield from _bar(title)
    else:
        yield _lines(title)


def _lines(title: str) -> Report:
    """At most one line for each twentieth of the whole, and for each new word."""
    last: list[object] = []

    def report(done: int, total: int | None, text: str) -> None:
        step = [done * _STEPS // total if total else done, text.partition(",")[0]]
        if step != last:
            last[:] = step
            note(f"{title}: {done} of {total if total is not None else '?'}, {text}")

    return report


def _bar(title: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[text]}", markup=False), console=Console(stderr=True)) as shown:
        task = shown.add_task(title, total=None, text="")
        yield lambda done, total, text: shown.update(task, completed=done, total=total, text=text)
