"""Two devices, one of them with a module, a few policies, and a connection that holds up to two tokens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from methodhub.core.access import Policy, Right
from methodhub.core.identity import Target
from methodhub.device.grants import Grants
from tests.contract.lines import line_services
from tests.rooms.world import World

KEY = "cG9saWN5LXBvbGljeS1wb2xpY3k="


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        world.create(Target("d"), Target("e"), Target("f"), Target("d", "m"))
        yield world


@pytest.fixture
def grants(world: World) -> Grants:
    services = line_services(world)
    rights = {"device": Right.DEVICE_CONNECT, "service": Right.SERVICE_CONNECT, "registryRead": Right.REGISTRY_READ}
    services.policies.load([Policy(name, right, KEY, KEY) for name, right in rights.items()])
    return Grants(services, limit=2)
