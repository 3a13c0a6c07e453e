"""What the address of a PostgreSQL database may be. Connects to nothing."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

URL_RULE = "postgresql://user:password@host:port/database, with parameters such as ?sslmode=verify-full"
TLS_MODES = ("require", "verify-ca", "verify-full")
"""Those of libpq that never fall back to plain text."""


def check_database_url(url: str) -> str:
    """Raises ValueError, whose text never holds the URL: there may be a password in it."""
    try:
        parts = urlsplit(url)
        hosts = hosts_of(parts)
    except ValueError:
        raise ValueError(f"is no URL; it must read {URL_RULE}") from None
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError(f"must read {URL_RULE}")
    if not hosts:
        raise ValueError("must name its host, or with ?host= the directory of the server's socket")
    if not parts.path.strip("/"):
        raise ValueError(f"must name the database; it must read {URL_RULE}")
    return url


def travels_in_the_open(url: str) -> bool:
    """Whether a connection may leave this machine without TLS."""
    parts = urlsplit(url)
    modes = parse_qs(parts.query).get("sslmode", [""])
    return modes[-1] not in TLS_MODES and not all(map(is_here, hosts_of(parts)))


def hosts_of(parts: SplitResult) -> list[str]:
    """Those in the authority and those in `?host=`, several with commas between."""
    authority = parts.netloc.rpartition("@")[2]
    named = [without_port(unquote(part)) for part in authority.split(",")]
    for value in parse_qs(parts.query).get("host", []):
        named += [without_port(part) for part in value.split(",")]
    return [host for host in named if host]


def without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if host.startswith("/") or host.count(":") > 1 else host.partition(":")[0]


def is_here(host: str) -> bool:
    if host.startswith("/") or host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
