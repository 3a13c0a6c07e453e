"""What the tokens of one connection allow, from the first to the last of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from methodhub.core.access import CLOCK_SKEW, Action, AuthenticationError, KeyCredential, Policy, Principal, Right
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.core.throttles.limits import throttle_limits
from methodhub.core.throttles.throttles import Throttles
from methodhub.device.grants import Grant, Grants, TooManyTokens, authorize_target
from methodhub.iothub.sas import build_token
from methodhub.metrics import Metrics
from tests.rooms.world import World

KEY = "cG9saWN5LXBvbGljeS1wb2xpY3k="
D, E, MODULE = Target("d"), Target("e"), Target("d", "m")


def token(world: World, path: str, seconds: int = 3600, key: str = "") -> str:
    """A device's own; `path`: its id, or device/module."""
    device_id, _, module_id = path.partition("/")
    target = Target(device_id, module_id)
    resource = f"hub.local/devices/{device_id}" + (f"/modules/{module_id}" if module_id else "")
    key = key or world.run(world.registry.get(target)).authentication.keys[0]
    return build_token(resource, key, int(world.clock.wall()) + seconds)


def policy_token(world: World, policy: str, resource: str = "hub.local", seconds: int = 3600) -> str:
    return build_token(resource, KEY, int(world.clock.wall()) + seconds, policy)


def put(world: World, grants: Grants, text: str) -> Grant:
    return world.run(grants.put(text))


def authorize(world: World, grants: Grants, target: Target) -> object:
    return world.run(authorize_target(grants._services, grants, target, ()))[2]


def test_a_devices_token_speaks_for_the_device_alone(world: World, grants: Grants) -> None:
    assert not grants
    grant = put(world, grants, token(world, "d"))
    assert (grant.target, grants.find(D), grants.find(E), grants.find(MODULE)) == (D, grant, None, None)
    assert bool(grants) and grants.names_anybody() and not grants.is_service()
    assert isinstance(authorize(world, grants, D), KeyCredential)
    for target in (E, MODULE):
        with pytest.raises(AuthenticationError):
            authorize(world, grants, target)


def test_a_modules_token_speaks_for_the_module_alone(world: World, grants: Grants) -> None:
    grant = put(world, grants, token(world, "d/m"))
    assert (grants.find(MODULE), grants.find(D)) == (grant, None)


@pytest.mark.parametrize(
    ("resource", "found"),
    [
        ("hub.local", {D, E, MODULE}),
        ("hub.local/devices", {D, E, MODULE}),
        ("hub.local/devices/d", {D, MODULE}),
        ("hub.local/devices/d/modules/m", {MODULE}),
    ],
)
def test_a_policys_token_speaks_for_all_below_its_path(
    world: World, grants: Grants, resource: str, found: set[Target]
) -> None:
    put(world, grants, policy_token(world, "device", resource))
    assert {target for target in (D, E, MODULE) if grants.find(target)} == found
    assert not grants.names_anybody() and not grants.is_service()


def test_a_back_ends_token_speaks_for_no_device(world: World, grants: Grants) -> None:
    put(world, grants, policy_token(world, "service"))
    assert grants.is_service()
    assert grants.find(D) is None


@pytest.mark.parametrize(
    "text",
    [
        lambda world: "nonsense",
        lambda world: token(world, "d", key=KEY),
        lambda world: token(world, "d", seconds=-301),
        lambda world: token(world, "d").replace("hub.local", "elsewhere"),
        lambda world: policy_token(world, "registryRead"),
        lambda world: policy_token(world, "nobody"),
        lambda world: build_token("hub.local/messages", KEY, 4_000_000_000),
    ],
)
def test_a_token_that_does_not_hold(world: World, grants: Grants, text: object) -> None:
    with pytest.raises(AuthenticationError):
        put(world, grants, text(world))  # type: ignore[operator]
    assert not grants


def test_a_token_for_nobody_and_for_who_is_disabled(world: World, grants: Grants) -> None:
    for_d = token(world, "d")
    with pytest.raises(HubError) as raised:
        put(world, grants, token(world, "none", key=KEY))
    assert raised.value.code == 404001
    world.enable(D, False)
    with pytest.raises(HubError):
        put(world, grants, for_d)


def test_a_newer_token_replaces_the_older_one(world: World, grants: Grants) -> None:
    """[HUB-token-renewal] And counts as one."""
    for seconds in (100, 200, 50):
        put(world, grants, token(world, "d", seconds))
    assert grants.next_expiry() == int(world.clock.wall()) + 50
    put(world, grants, token(world, "e", 70))
    with pytest.raises(TooManyTokens):
        put(world, grants, token(world, "f"))
    grants.drop(E)
    assert grants.find(E) is None
    put(world, grants, token(world, "f"))


def test_tokens_end_five_minutes_after_their_time(world: World, grants: Grants) -> None:
    """[HUB-token-expired]"""
    put(world, grants, token(world, "d", 100))
    own = put(world, grants, token(world, "e", 5_000))
    now = int(world.clock.wall())
    assert grants.expired(now + 399) == []
    assert [grant.target for grant in grants.expired(now + 400)] == [D]
    assert (grants.find(D), grants.find(E), grants.next_expiry()) == (None, own, own.expiry)
    assert [grant.target for grant in grants.expired(now + 9_999)] == [E]
    assert (bool(grants), grants.next_expiry()) == (False, None)


def test_dropping_one_identity_keeps_the_others_and_the_policys(world: World, grants: Grants) -> None:
    put(world, grants, token(world, "d"))
    put(world, grants, policy_token(world, "device"))
    grants.drop(D)
    found = grants.find(D)
    assert found is not None and found.target is None


def test_its_own_token_comes_before_a_policys(world: World, grants: Grants) -> None:
    put(world, grants, policy_token(world, "device", seconds=9_000))
    own = put(world, grants, token(world, "d", 10))
    assert grants.find(D) is own


def test_a_token_whose_key_was_changed_holds_no_more(world: World, grants: Grants) -> None:
    """[HUB-token-renewal]"""
    put(world, grants, token(world, "d"))
    identity = world.run(world.registry.get(D))
    changed = replace(identity.authentication, primary_key=KEY, secondary_key=KEY)
    world.run(world.registry.update(replace(identity, authentication=changed), None))
    with pytest.raises(AuthenticationError):
        authorize(world, grants, D)
    put(world, grants, token(world, "d"))
    authorize(world, grants, D)


def test_a_policys_token_whose_key_was_changed_holds_no_more(world: World, grants: Grants) -> None:
    put(world, grants, policy_token(world, "device"))
    authorize(world, grants, D)
    other = "b3RoZXItb3RoZXItb3RoZXItb3RoZXI="
    grants._services.policies.load([Policy("device", Right.DEVICE_CONNECT, other, other)])
    with pytest.raises(AuthenticationError):
        authorize(world, grants, D)


class Bearers:
    """In place of the tokens of issuers: `Bearer <name>` is a principal of that name."""

    def __init__(self, **actions: set[Action]) -> None:
        self.actions = actions

    async def authenticate_later(self, header: bytes) -> Principal:
        name = header.decode().removeprefix("Bearer ")
        if name not in self.actions:
            raise AuthenticationError("the bearer token is no good")
        return Principal(name, frozenset(self.actions[name]), expiry=1_900_000_000.0)


def test_a_bearer_token_lets_a_back_end_in_and_speaks_for_no_device(world: World, grants: Grants) -> None:
    """[HUB-bearer-amqp]"""
    bearers: Any = Bearers(reader={Action.TWINS_READ}, registrar=set(Action) & {Action.DEVICES_READ}, all=set(Action))
    grants._services = replace(grants._services, bearer=bearers)
    for text in ("Bearer registrar", "Bearer nobody"):
        with pytest.raises(AuthenticationError):
            put(world, grants, text)
    assert not grants
    for name in ("reader", "all"):
        grant = put(world, grants, f"Bearer {name}")
        assert grants.is_service() and not grants.names_anybody()
        assert (grant.target, grant.credential, grant.expiry) == (None, None, 1_900_000_000.0)
        assert grants.find(D) is None
        with pytest.raises(AuthenticationError):
            authorize(world, grants, D)
    put(world, grants, "Bearer all")  # a newer one of the same takes its place
    assert len(grants.expired(1_900_000_000.0 + CLOCK_SKEW)) == 2


def test_a_bearer_token_where_no_issuer_is_configured(world: World, grants: Grants) -> None:
    with pytest.raises(AuthenticationError, match="no issuer"):
        put(world, grants, "Bearer abc")


def test_an_identity_above_the_throttle_of_connections_is_told_so(world: World, grants: Grants) -> None:
    """[HUB-throttle-connections] Whoever holds no token for it takes nobody's turn."""
    throttles = Throttles(throttle_limits("S1", 1), world.deadlines, world.clock, Metrics())
    grants._services = replace(grants._services, throttles=throttles)
    put(world, grants, token(world, "d"))
    for _ in range(100):
        with pytest.raises(AuthenticationError):
            authorize(world, grants, E)
    authorize(world, grants, D)
    throttles.connections._level = -1e6
    with pytest.raises(HubError) as refused:
        authorize(world, grants, D)
    assert refused.value.code is ErrorCode.ThrottlingBacklogTimeout
