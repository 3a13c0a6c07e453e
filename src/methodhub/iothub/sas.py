"""Shared access signatures as text: parsing every SDK's spelling, and writing our own (`wire/device.md` 5.1)."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import quote, unquote, unquote_plus

from methodhub.core.access import SasToken, sign

SCHEME = "SharedAccessSignature"
MAX_TOKEN_LENGTH = 4096


class MalformedToken(ValueError):
    """A text that is no token. The message never contains it."""


def parse_token(text: str) -> SasToken:
    """Parse `SharedAccessSignature sr=..&sig=..&se=..[&skn=..]`: fields in any order, their names in any case.

    Raises MalformedToken.
    """
    if len(text) > MAX_TOKEN_LENGTH:
        raise MalformedToken(f"the token is longer than {MAX_TOKEN_LENGTH} characters")
    scheme, _, rest = text.strip().partition(" ")
    if scheme.lower() != SCHEME.lower() or not rest:
        raise MalformedToken(f"it does not begin with '{SCHEME} '")
    fields = _fields(rest.strip())
    try:
        resource, signature_text, expiry_text = fields["sr"], fields["sig"], fields["se"]
    except KeyError as missing:
        raise MalformedToken(f"the field {missing} is missing") from None
    try:
        # A raw + of base64 stays a +: only percent-encoding is undone.
        signature = base64.b64decode(unquote(signature_text), validate=True)
    except (binascii.Error, ValueError):
        raise MalformedToken("the field sig is not base64") from None
    host, paths = parse_resource(resource)
    return SasToken(
        host=host,
        paths=paths,
        expiry=_expiry(expiry_text),
        policy_name=unquote(fields["skn"]) or None if "skn" in fields else None,
        signature=signature,
        signed_text=f"{resource}\n{expiry_text}".encode(),
    )


def _fields(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for part in text.split("&"):
        name, separator, value = part.partition("=")
        name = name.strip().lower()
        if not separator or name in fields:
            raise MalformedToken("a field has no value, or is given twice")
        fields[name] = value.strip()
    return fields


def _expiry(text: str) -> float:
    try:
        expiry = float(text)
    except ValueError:
        raise MalformedToken("the field se is not a number of seconds") from None
    if not 0 <= expiry < 1e12:
        raise MalformedToken("the field se is outside the range of times")
    return expiry


def parse_resource(resource: str) -> tuple[str, tuple[tuple[str, ...], ...]]:
    """Host (lower case, without a port) and the readings of the path of an `sr` text in any SDK's encoding.

    C encodes nothing, Python everything, C# ids twice. Ids may hold a literal `%`, so every reading is kept where they
    differ. The first is the one of most SDKs: decoded once.
    """
    host, once = _split(unquote(resource))
    twice = tuple(unquote_plus(segment) for segment in once)
    raw_host, raw = _split(resource)
    if raw_host != host or len(raw) != len(once):
        raw = once  # more of it is encoded than ids: what is left of the path would cover too much
    return host, tuple(dict.fromkeys((once, twice, raw)))


def _split(text: str) -> tuple[str, tuple[str, ...]]:
    """Host and path. Some tools append the query to the path: it is cut off where no id can stand, else the scope
    of an id that looks like a query would widen to all devices."""
    host, *segments = text.split("/")
    if host.lower() in {"https:", "amqps:"} and len(segments) > 1:
        _, host, *segments = segments
    host = host.rsplit(":", 1)[0] if host.count(":") == 1 else host
    path: list[str] = []
    for segment in segments:
        if len(path) % 2 == 0 and segment.lower().startswith(("api-version=", "?")):
            break
        if segment:
            path.append(segment)
    return host.lower(), tuple(path)


def build_token(resource: str, key: str, expiry: int, policy_name: str | None = None) -> str:
    """A token for `resource` (`host` or `host/devices/id...`), valid until `expiry` (seconds since 1970, UTC).

    Raises ValueError if the key is not base64.
    """
    encoded = quote(resource, safe="")
    signature = base64.b64encode(sign(key, f"{encoded}\n{expiry}".encode())).decode()
    text = f"{SCHEME} sr={encoded}&sig={quote(signature, safe='')}&se={expiry}"
    return f"{text}&skn={policy_name}" if policy_name else text
