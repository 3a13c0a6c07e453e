"""Bearer tokens: which are believed, which are not, and how often an issuer is asked for its keys."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from joserfc.jwk import OctKey, RSAKey

from methodhub.core.access import Action, AuthenticationError
from methodhub.core.bearer.issuers import ROLES, Issuer
from methodhub.core.bearer.keys import MAX_KEYS, KeysUnavailable, read_keys
from methodhub.core.bearer.tokens import REFRESH_SECONDS, RETRY_SECONDS, BearerTokens, KeysWanted
from tests.clock import ManualClock
from tests.hub_limits.issuer import ISSUER, bearer, claims, ec_key, jwks, part, rsa_key, sign

KEY = rsa_key()
OTHER = rsa_key("k2")
NOW = ManualClock().wall()


class World:
    """The tokens of one issuer, whose document the test holds; `fetches` counts how often it was asked."""

    def __init__(self, document: bytes | Exception = b"", **issuer: Any) -> None:
        self.clock = ManualClock()
        self.document: bytes | Exception = document or jwks(KEY)
        self.fetches = 0
        self.forgotten = 0
        self.gate: asyncio.Event | None = None
        self.tokens = BearerTokens([Issuer(ISSUER, **issuer)], self.fetch, self.clock, self.forget)

    async def fetch(self, issuer: Issuer) -> bytes:
        self.fetches += 1
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.document, Exception):
            raise self.document
        return self.document

    def forget(self) -> None:
        self.forgotten += 1

    def refusal(self, token: str) -> str:
        with pytest.raises(AuthenticationError) as refused:
            self.tokens.authenticate(bearer(token))
        return str(refused.value)


def run(work: Callable[[World], Awaitable[None]], **options: Any) -> World:
    """The work on a world whose keys were fetched once."""
    world = World(**options)

    async def main() -> None:
        await world.tokens.refresh()
        await work(world)

    asyncio.run(main())
    return world


def refused(token: str, **options: Any) -> str:
    """Why it is refused; its issuer was not asked again."""
    said: list[str] = []

    async def work(world: World) -> None:
        said.append(world.refusal(token))

    assert run(work, **options).fetches == 1
    return said[0]


@pytest.mark.parametrize("header", ["Bearer ", "bearer ", "BEARER   "])
def test_a_token_of_the_issuer_is_believed_and_known_again(header: str) -> None:
    async def work(world: World) -> None:
        text = header.encode() + sign(KEY, claims(NOW)).encode()
        principal = world.tokens.authenticate(text)
        assert (principal.name, principal.actions, principal.expiry) == ("app-1", frozenset(Action), NOW + 3600)
        assert world.tokens.authenticate(text) is principal
        world.clock.advance(3600 + 301)
        with pytest.raises(AuthenticationError, match="expired"):
            world.tokens.authenticate(text)

    run(work)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(rsa_key(), "RS512"), (rsa_key(), "PS256"), (ec_key(), "ES256"), (ec_key(curve="P-384"), "ES384")],
    ids=["RS512", "PS256", "ES256", "ES384"],
)
def test_every_asymmetric_algorithm(key: Any, algorithm: str) -> None:
    async def work(world: World) -> None:
        assert world.tokens.authenticate(bearer(sign(key, claims(NOW), algorithm))).name == "app-1"

    run(work, document=jwks(key))


def confused(secret: bytes) -> str:
    """A token signed by HMAC with what everybody knows, the public key."""
    signed = part({"alg": "HS256", "kid": "k1"}) + "." + part(claims(NOW))
    mac = hmac.digest(secret, signed.encode(), hashlib.sha256)
    return signed + "." + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


GOOD = sign(KEY, claims(NOW))
HEAD, BODY, SIGNATURE = GOOD.split(".")


@pytest.mark.parametrize(
    ("token", "why"),
    [
        # how it is signed
        (part({"alg": "none"}) + f".{BODY}.", "no signed JWT"),
        (part({"alg": "none", "kid": "k1"}) + f".{BODY}.{SIGNATURE}", "'none', which is not taken"),
        (part({"alg": "None", "kid": "k1"}) + f".{BODY}.{SIGNATURE}", "'None', which is not taken"),
        (f"{HEAD}.{BODY}", "no signed JWT"),
        (f"{HEAD}.{BODY}.", "no signed JWT"),
        (confused(KEY.as_pem(private=False)), "'HS256', which is not taken"),
        (confused(jwks(KEY)), "'HS256', which is not taken"),
        # forged
        (f"{HEAD}.{part(claims(NOW, sub='somebody'))}.{SIGNATURE}", "signature"),
        (f"{HEAD}.{BODY}.{SIGNATURE[:-4]}AAAA", "signature"),
        (sign(rsa_key("k1"), claims(NOW)), "signature"),
        (part({"alg": "PS256", "kid": "k1"}) + f".{BODY}.{SIGNATURE}", "signature"),
        # keys that it brings itself
        (sign(OTHER, claims(NOW), kid="k1", jwk=OTHER.as_dict(private=False)), "signature"),
        (sign(OTHER, claims(NOW), kid="k1", jku="https://127.0.0.1:1/jwks", x5u="https://127.0.0.1:1/x"), "signature"),
        (sign(OTHER, claims(NOW), kid="k1", x5c=["MIIB"]), "signature"),
        (part({"alg": "RS256", "kid": "k1", "crit": ["b64"], "b64": False}) + f".{BODY}.{SIGNATURE}", "extension"),
        (part({"alg": "RS256", "kid": 1}) + f".{BODY}.{SIGNATURE}", "no text"),
        # for whom and by whom
        (sign(KEY, claims(NOW, aud="https://management.azure.com")), "not for this hub"),
        (sign(KEY, claims(NOW, aud=["a", "b"])), "not for this hub"),
        (sign(KEY, claims(NOW, aud=None)), "not for this hub"),
        (sign(KEY, claims(NOW, aud={"https://iothubs.azure.net": 1})), "not for this hub"),
        (sign(KEY, claims(NOW, iss="https://issuer.test/tenant/")), "whom nobody configured"),
        (sign(KEY, claims(NOW, iss=["https://issuer.test/tenant"])), "whom nobody configured"),
        (sign(KEY, claims(NOW, iss=None)), "whom nobody configured"),
        # when
        (sign(KEY, claims(NOW, exp=NOW - 301)), "expired 301 seconds ago"),
        (sign(KEY, claims(NOW, nbf=NOW + 301)), "valid in 301 seconds"),
        (sign(KEY, claims(NOW, exp=None)), "no expiry"),
        (sign(KEY, claims(NOW, exp="4000000000")), "no time"),
        (sign(KEY, claims(NOW, exp=True)), "no time"),
        (sign(KEY, claims(NOW, exp=10**400)), "no"),
        (sign(KEY, claims(NOW, nbf=-1)), "no time"),
        # shapes
        (sign(KEY, claims(NOW, sub=None)), "no principal"),
        (sign(KEY, claims(NOW, sub="", appid=7)), "no principal"),
        (sign(KEY, claims(NOW, more="x" * 17_000)), "longer than 16384 bytes"),
        (f"{part([])}.{BODY}.{SIGNATURE}", "no JSON object"),
        (f"{HEAD}.{part('text')}.{SIGNATURE}", "no JSON object"),
        ("a.b.c", "no JSON object"),
        ("", "no signed JWT"),
        ("é.b.c", "no signed JWT"),
        (f"{HEAD}.{base64.urlsafe_b64encode(b'[' * 9_000).decode()}.{SIGNATURE}", "no JSON object"),
    ],
    ids=lambda text: text[:30],
)
def test_what_is_not_believed(token: str, why: str) -> None:
    """[HUB-bearer-algorithm] [HUB-bearer-header] [HUB-bearer-audience] [HUB-bearer-time]"""
    assert why in refused(token)


def test_a_header_that_brings_its_own_key_is_read_as_if_it_did_not() -> None:
    """[HUB-bearer-header] What the issuer signed holds, whatever else the header says."""

    async def work(world: World) -> None:
        token = sign(KEY, claims(NOW), jku="https://127.0.0.1:1/", jwk=OTHER.as_dict(private=False), x5c=["MIIB"])
        assert world.tokens.authenticate(bearer(token)).name == "app-1"

    run(work)


@pytest.mark.parametrize("times", [{"exp": NOW - 299}, {"nbf": NOW + 299}], ids=str)
def test_five_minutes_of_skew(times: dict[str, float]) -> None:
    """[HUB-bearer-time]"""

    async def work(world: World) -> None:
        assert world.tokens.authenticate(bearer(sign(KEY, claims(NOW, **times)))).name == "app-1"

    run(work)


def test_a_key_is_for_its_own_kind_of_algorithm() -> None:
    """[HUB-bearer-algorithm] Neither what it says itself nor its curve can be crossed."""
    for entry, algorithm in (({**KEY.as_dict(private=False), "alg": "PS256"}, "RS256"), (KEY, "ES256")):
        key = ec_key() if algorithm == "ES256" else KEY

        async def work(world: World, token: str = sign(key, claims(NOW), algorithm)) -> None:
            with pytest.raises(KeysWanted):  # none of that id suits
                world.tokens.authenticate(bearer(token))

        run(work, document=jwks(entry))


def test_only_the_configured_algorithms() -> None:
    assert "not taken" in refused(GOOD, algorithms=frozenset({"ES256"}))


# --- what they may ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "actions"),
    [
        ({"roles": ["IoT Hub Data Reader"]}, ROLES["IoT Hub Data Reader"]),
        ({"roles": "IoTHubTwinContributor"}, {Action.TWINS_READ, Action.TWINS_WRITE}),
        (
            {"roles": ["IoT Hub Registry Contributor", "other", 7]},
            {Action.DEVICES_READ, Action.DEVICES_WRITE, Action.DEVICES_DELETE},
        ),
        ({"roles": None, "scope": "openid IoTHubDataContributor"}, set(Action)),
        ({"roles": None, "scp": "IoTHubDataContributor x"}, set(Action)),
        ({"roles": None}, set()),
        ({"roles": {"IoT Hub Data Contributor": 1}}, set()),
        ({"roles": None, "groups": ["IoT Hub Data Contributor"]}, set()),
    ],
)
def test_roles_and_scopes_become_actions(said: dict[str, Any], actions: set[Action]) -> None:
    async def work(world: World) -> None:
        assert world.tokens.authenticate(bearer(sign(KEY, claims(NOW, **said)))).actions == actions

    run(work)


def test_the_name_is_the_subject_else_the_app_else_the_object() -> None:
    async def work(world: World) -> None:
        for said, name in (
            ({"appid": "a"}, "app-1"),
            ({"sub": None, "appid": "a"}, "a"),
            ({"sub": None, "oid": "o"}, "o"),
        ):
            assert world.tokens.authenticate(bearer(sign(KEY, claims(NOW, **said)))).name == name

    run(work)


# --- keys ---------------------------------------------------------------------------------------------------------


def test_an_unknown_key_costs_one_fetch_a_minute_which_all_share() -> None:
    """[HUB-bearer-unknown-key]"""

    async def work(world: World) -> None:
        world.gate = asyncio.Event()
        many = [sign(OTHER, claims(NOW, sub=f"app-{number}")) for number in range(20)]
        asking = [asyncio.create_task(world.tokens.authenticate_later(bearer(token))) for token in many]
        await asyncio.sleep(0)
        world.document = jwks(KEY, OTHER)
        world.gate.set()
        assert [principal.name for principal in await asyncio.gather(*asking)] == [f"app-{n}" for n in range(20)]
        assert world.fetches == 2
        for number in range(3):
            assert "a moment ago" in world.refusal(sign(rsa_key(f"x{number}"), claims(NOW)))
        assert world.fetches == 2
        world.clock.advance(RETRY_SECONDS)
        with pytest.raises(AuthenticationError, match="a moment ago"):
            await world.tokens.authenticate_later(bearer(sign(rsa_key("y"), claims(NOW))))
        assert world.fetches == 3

    run(work)


def test_one_who_hangs_up_does_not_stop_the_fetch_of_the_others() -> None:
    async def work(world: World) -> None:
        world.gate = asyncio.Event()
        first, second = (
            asyncio.create_task(world.tokens.authenticate_later(bearer(sign(OTHER, claims(NOW, sub=name)))))
            for name in ("a", "b")
        )
        await asyncio.sleep(0)
        first.cancel()
        world.document = jwks(OTHER)
        world.gate.set()
        assert (await second).name == "b"

    run(work)


def test_a_rotated_key_ends_what_it_signed() -> None:
    """What is remembered of it, too; the hub is told to forget."""

    async def work(world: World) -> None:
        assert world.tokens.authenticate(bearer(GOOD)).name == "app-1"
        assert world.forgotten == 1
        world.document = jwks(OTHER)
        world.clock.advance(REFRESH_SECONDS - 1)
        await world.tokens.refresh()
        assert (world.fetches, world.forgotten) == (1, 1)
        world.clock.advance(1)
        await world.tokens.refresh()
        assert (world.fetches, world.forgotten) == (2, 2)
        assert world.tokens.authenticate(bearer(sign(OTHER, claims(NOW + 3600)))).name == "app-1"
        world.document = jwks(OTHER)
        with pytest.raises(AuthenticationError, match="no such key"):
            await world.tokens.authenticate_later(bearer(sign(KEY, claims(NOW + 3600))))

    run(work)


@pytest.mark.parametrize("failure", [KeysUnavailable("down"), RuntimeError("a defect"), b"nonsense"], ids=repr)
def test_the_last_good_keys_stay_while_the_issuer_is_down(failure: bytes | Exception) -> None:
    """[HUB-bearer-last-good] It is asked again each minute."""

    async def work(world: World) -> None:
        world.document = failure
        world.clock.advance(REFRESH_SECONDS)
        await world.tokens.refresh()
        await world.tokens.refresh()
        assert (world.fetches, world.forgotten) == (2, 1)
        assert world.tokens.authenticate(bearer(sign(KEY, claims(NOW + 3600)))).name == "app-1"
        world.clock.advance(RETRY_SECONDS)
        world.document = jwks(KEY, OTHER)
        await world.tokens.refresh()
        assert (world.fetches, world.forgotten) == (3, 2)

    run(work)


def test_before_the_first_keys_a_token_waits_for_them() -> None:
    async def work(world: World) -> None:
        with pytest.raises(AuthenticationError, match="could not be asked"):
            await world.tokens.authenticate_later(bearer(GOOD))
        assert "could not be asked" in world.refusal(GOOD)
        world.document = jwks(KEY)
        world.clock.advance(RETRY_SECONDS)
        assert (await world.tokens.authenticate_later(bearer(GOOD))).name == "app-1"

    assert run(work, document=KeysUnavailable("down")).fetches == 3


def test_a_token_without_a_key_id_has_the_only_key_that_suits() -> None:
    async def work(world: World) -> None:
        token = sign(KEY, claims(NOW), kid=None)
        assert world.tokens.authenticate(bearer(token)).name == "app-1"
        world.document = jwks(KEY, OTHER)
        world.clock.advance(REFRESH_SECONDS)
        await world.tokens.refresh()
        assert "names no key" in world.refusal(token)

    run(work)


def test_of_a_document_only_keys_for_signatures_are_read() -> None:
    private, short = KEY.as_dict(private=True), {"kty": "RSA", "n": "AQAB", "e": "AQAB"}
    secret = OctKey.import_key("c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA==").as_dict()
    odd: list[Any] = [
        {},
        {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
        {"kty": "RSA", "n": 7, "e": "AQAB"},
        short,
        secret,
    ]
    off_curve = {**ec_key("e").as_dict(private=False), "x": "AA"}
    found = read_keys(jwks(*odd, off_curve, {**OTHER.as_dict(private=False), "use": "enc"}, private))
    assert [key.key_id for key in found] == ["k1"]
    assert isinstance(next(iter(found)).key, RSAKey) and not next(iter(found)).key.is_private


@pytest.mark.parametrize(
    "document",
    [
        *(b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[]}', b'{"keys":[7]}', b"\xff", b"[" * 5_000),
        json.dumps({"keys": [{"kty": "RSA"}] * (MAX_KEYS + 1)}).encode(),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_what_is_no_key_set(document: bytes) -> None:
    with pytest.raises(KeysUnavailable):
        read_keys(document)
