"""How the device SDKs begin over AMQP, per kind of credential: played from one file per SDK."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clock import ManualClock
from tests.harness import RunningHub
from tests.transcripts.amqp_player import AmqpPlayer
from tests.transcripts.dialogues import Dialogue, read_all

DIALOGUES = read_all(Path(__file__).parent / "devices_amqp")


@pytest.fixture(scope="module")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """One for all dialogues: each has its own device, and time only goes on."""
    with RunningHub(tmp_path_factory.mktemp("hub"), ManualClock(wall=float(int(time.time())))) as hub:
        yield hub


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=str)
def test_dialogue_of_a_device(shared_hub: RunningHub, dialogue: Dialogue) -> None:
    """[HUB-cbs] [HUB-link-address] [HUB-token-renewal]"""
    AmqpPlayer(shared_hub, dialogue).play()
