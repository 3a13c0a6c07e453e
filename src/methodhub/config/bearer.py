"""Settings of bearer tokens: the flat ones, and tables of further issuers that take from those what they leave out."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from methodhub.config.checks import split_names
from methodhub.core.access import Action
from methodhub.core.bearer.issuers import ALGORITHMS, DEFAULT_GRANTS, actions_of_names

Grants = dict[str, frozenset[Action]]


def _check_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname or parts.fragment or parts.username is not None:
        raise ValueError(f"{text!r} is no https address")
    return text


def _check_algorithms(names: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in names if name not in ALGORITHMS]
    if unknown or not names:
        raise ValueError(f"{', '.join(unknown) or 'nothing'} is not among {', '.join(ALGORITHMS)}")
    return names


def _check_texts(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or not all(names):
        raise ValueError("must hold at least one text, and none that is empty")
    return names


def _read_grants(value: object) -> object:
    """`role = action, action; role = action`, or a table of texts or lists."""
    if isinstance(value, str):
        pairs = [pair.partition("=") for pair in re.split(r"\s*;\s*", value.strip()) if pair]
        if not all(name.strip() and equals for name, equals, _ in pairs):
            raise ValueError("must read role=action,action;role=action")
        value = {name.strip(): actions for name, _, actions in pairs}
    if not isinstance(value, dict):
        return value
    return {name: _actions(given) for name, given in value.items()}


def _actions(given: Any) -> object:
    names = given.split(",") if isinstance(given, str) else given
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return actions_of_names(names)
    return given


def _read_tables(value: object) -> object:
    return json.loads(value) if isinstance(value, str) else value


Url = Annotated[str, AfterValidator(_check_url)]
Algorithms = Annotated[tuple[str, ...], BeforeValidator(split_names), AfterValidator(_check_algorithms)]
Texts = Annotated[tuple[str, ...], BeforeValidator(split_names), AfterValidator(_check_texts)]
GrantTable = Annotated[Grants, BeforeValidator(_read_grants)]


class IssuerTable(BaseModel):
    """One issuer in the TOML file. What is left out is as in the flat settings; the address of keys never is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Url
    jwks_url: Url | None = None
    audience: Texts | None = None
    algorithms: Algorithms | None = None
    claims: Texts | None = None
    grants: GrantTable | None = None


def issuers_setting() -> Any:
    return Field(
        (),
        description="Further issuers. What a table leaves out is as in the settings above, jwks_url excepted.",
        json_schema_extra={
            "allowed": "TOML tables with issuer, jwks_url, audience, algorithms, claims and grants; or as JSON",
            "default": "none",
        },
    )


IssuerTables = Annotated[tuple[IssuerTable, ...], BeforeValidator(_read_tables)]


def grants_setting() -> Any:
    return Field(
        dict(DEFAULT_GRANTS),
        description="What a role or scope in a token lets its holder do: data actions with or without "
        "Microsoft.Devices/IotHubs/, * at their end or their beginning, or a built-in role. As text: "
        "role=action,action;role=action.",
        json_schema_extra={
            "allowed": "a table of data actions or built-in roles by role or scope",
            "default": "the built-in roles by their names, also without spaces",
        },
    )
