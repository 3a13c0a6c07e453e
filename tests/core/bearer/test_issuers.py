"""Data actions as they are written in settings."""

from __future__ import annotations

import pytest

from methodhub.core.access import Action
from methodhub.core.bearer.issuers import actions_of_names

READS = {Action.DEVICES_READ, Action.TWINS_READ, Action.JOBS_READ, Action.STATISTICS_READ}


@pytest.mark.parametrize(
    ("names", "actions"),
    [
        (["twins/read"], {Action.TWINS_READ}),
        (["Microsoft.Devices/IotHubs/directMethods/invoke/action"], {Action.METHODS_INVOKE}),
        (
            ["MICROSOFT.DEVICES/IOTHUBS/TWINS/*", " jobs/read "],
            {Action.TWINS_READ, Action.TWINS_WRITE, Action.JOBS_READ},
        ),
        (["*"], set(Action)),
        (["Microsoft.Devices/IotHubs/*"], set(Action)),
        (["*/read"], READS),
        (["dev*"], {Action.DEVICES_READ, Action.DEVICES_WRITE, Action.DEVICES_DELETE}),
        (["directMethods/*"], {Action.METHODS_INVOKE}),
        (["IoT Hub Data Reader"], READS),
        (["iothubdatareader"], READS),
        (["configurations/*"], set()),
        (["fileUpload/notifications/action"], set()),
        ([], set()),
    ],
)
def test_names_become_actions(names: list[str], actions: set[Action]) -> None:
    assert actions_of_names(names) == actions


@pytest.mark.parametrize(
    "name", ["", "twins", "twins/reed", "**", "twins/*/*", "a*b", "Data Reader", "twins read", "/"]
)
def test_a_name_that_names_nothing_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="data action"):
        actions_of_names([name])
