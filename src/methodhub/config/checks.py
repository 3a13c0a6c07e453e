"""What single settings may be: how values are read, checked and described."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

PREFIX = "METHODHUB_"
SOCKET_NAME = "methodhub.sock"
SOCKET_PATH_LIMIT = 103 if sys.platform == "darwin" else 107
"""Bytes that the operating system takes as the path of a UNIX socket."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
NAME_RULE = "DNS names or IP addresses, without scheme, port or brackets"


def default_data_dir() -> Path:
    """One directory per user: below $XDG_DATA_HOME where that is an absolute path."""
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "share") / "methodhub"


def split_names(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _check_name(name: str) -> str:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        lower = name.lower()
        labels = lower.split(".")
        if len(lower) > 253 or labels[-1].isdigit() or not all(map(_LABEL.fullmatch, labels)):
            raise ValueError(f"{name!r} is no name; allowed: {NAME_RULE}") from None
        return lower
    if address.is_unspecified:
        raise ValueError(f"{name!r} is no address that a peer can dial; it may be a value of bind")
    return str(address)


def check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError(f"must hold at least one name; allowed: {NAME_RULE}")
    return tuple(dict.fromkeys(_check_name(name) for name in names))


def check_networks(networks: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return networks and tuple(str(ipaddress.ip_network(network, strict=False)) for network in networks)


def check_bind(value: str) -> str:
    return "localhost" if value.lower() == "localhost" else str(ipaddress.ip_address(value))


def whole_path(path: Path) -> Path:
    return path.expanduser().absolute()


def check_data_dir(path: Path) -> Path:
    path = whole_path(path)
    if len(os.fsencode(path / SOCKET_NAME)) > SOCKET_PATH_LIMIT:
        longest = SOCKET_PATH_LIMIT - len(SOCKET_NAME) - 1
        raise ValueError(f"must be at most {longest} bytes long, for the UNIX socket in it to have a legal path")
    return path


def setting(default: Any, allowed: str, meaning: str, **limits: Any) -> Any:
    return Field(default, description=meaning, json_schema_extra={"allowed": allowed}, **limits)


def whole(default: int | None, low: int, high: int, unit: str, meaning: str) -> Any:
    """A whole number from `low` to `high`, in `unit`."""
    return setting(default, f"{low} to {high} {unit}".strip(), meaning, ge=low, le=high)


OwnPath = Annotated[Path, AfterValidator(whole_path)]
