"""Files of wire dialogues: settings, then titled dialogues of marked lines. Knows neither MQTT nor HTTP.

# a comment                            key: value          a setting of the file, above the first dialogue
== title                               begins a dialogue
> what the client sends                < what the hub must send
! what others do, or time does         = what the client makes of what it got
(indented)                             goes on with the line above
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

VARIABLE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
"""Braces of JSON are never one: there a quote or another brace follows."""


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    mark: str
    text: str


@dataclass(frozen=True, slots=True)
class Dialogue:
    path: Path
    title: str
    settings: dict[str, str]
    lines: list[Line] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.path.stem}: {self.title}"


class Played(AssertionError):
    """A line of a dialogue that did not come true."""

    def __init__(self, dialogue: Dialogue, line: Line, problem: object) -> None:
        super().__init__(f"{dialogue.path.name}:{line.number}: {line.mark} {line.text}\n    {problem}")


def read_dialogues(path: Path) -> list[Dialogue]:
    """The dialogues of one file. Raises ValueError for a line that is none of the above."""
    settings: dict[str, str] = {}
    dialogues: list[Dialogue] = []
    for number, raw in enumerate(path.read_text().splitlines(), 1):
        if not raw.strip() or raw.startswith("#"):
            continue
        if raw.startswith("== "):
            dialogues.append(Dialogue(path, raw[3:].strip(), settings))
        elif raw[0] in "><!=" and raw[1:2] in {"", " "} and dialogues:
            dialogues[-1].lines.append(Line(number, raw[0], raw[2:]))
        elif raw[0] == " " and dialogues and dialogues[-1].lines:
            last = dialogues[-1].lines.pop()
            dialogues[-1].lines.append(Line(last.number, last.mark, f"{last.text} {raw.strip()}"))
        elif ":" in raw and not dialogues:
            key, _, value = raw.partition(":")
            settings[key.strip()] = value.strip()
        else:
            raise ValueError(f"{path.name}:{number}: no line of a dialogue: {raw!r}")
    return dialogues


def read_all(folder: Path) -> list[Dialogue]:
    return [dialogue for path in sorted(folder.glob("*.dialogue")) for dialogue in read_dialogues(path)]


def fill(text: str, value: Callable[[str], str]) -> str:
    """`text` with each `{name}` replaced; once, so that a value may hold braces."""
    return VARIABLE.sub(lambda match: value(match[1]), text)
