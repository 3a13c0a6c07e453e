"""What the service clients send, and what each makes of every row of the failure table; one file per client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clock import ManualClock
from tests.harness import RunningHub
from tests.transcripts.dialogues import Dialogue, Line, read_dialogues
from tests.transcripts.service_player import ROWS, ServicePlayer, read_calls

FILES = {path.stem: read_dialogues(path) for path in sorted((Path(__file__).parent / "services").glob("*.dialogue"))}
CALLS = {client: read_calls(dialogues) for client, dialogues in FILES.items()}
ROW_LINES = [
    (dialogue, line)
    for dialogues in FILES.values()
    for dialogue in dialogues
    if dialogue.title == "rows"
    for line in dialogue.lines
]
REGISTRY = [
    dialogue
    for dialogues in FILES.values()
    for dialogue in dialogues
    if dialogue.title != "rows" and not dialogue.title.startswith("call")
]


def make_hub(folder: Path) -> RunningHub:
    """So small that one call fills a device and two fill the hub."""
    clock = ManualClock(wall=float(int(time.time())))
    return RunningHub(folder, clock, device_open_calls=1, hub_open_calls=2)


@pytest.fixture(scope="module")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with make_hub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture(scope="module")
def stopping_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """Its listeners still accept; it takes no calls any more."""
    with make_hub(tmp_path_factory.mktemp("stopping")) as hub:
        hub.run(hub.hub.methods.stop())
        yield hub


@pytest.mark.parametrize("client", FILES)
def test_every_client_knows_every_row(client: str) -> None:
    rows = [line.text.split()[0] for dialogue, line in ROW_LINES if dialogue.path.stem == client]
    assert sorted(rows) == sorted(ROWS)


@pytest.mark.parametrize(("dialogue", "line"), ROW_LINES, ids=[f"{d.path.stem}: {line.text}" for d, line in ROW_LINES])
def test_row_of_the_failure_table(
    shared_hub: RunningHub, stopping_hub: RunningHub, dialogue: Dialogue, line: Line
) -> None:
    row = line.text.split()[0]
    with ServicePlayer(stopping_hub if row == "503001" else shared_hub, dialogue) as player:
        player.play_row(row, line, CALLS[dialogue.path.stem])


@pytest.mark.parametrize("dialogue", REGISTRY, ids=str)
def test_registry_dialogue(shared_hub: RunningHub, dialogue: Dialogue) -> None:
    with ServicePlayer(shared_hub, dialogue) as player:
        player.play()
