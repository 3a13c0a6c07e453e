"""What the addresses of NATS servers may be. Connects to nothing."""

from __future__ import annotations

from urllib.parse import urlsplit

from methodhub.config.database import is_here

URL_RULE = "nats://user:password@host:4222, or tls://...; several servers of one cluster with commas between"


def check_nats_url(urls: str) -> str:
    """Raises ValueError, whose text never holds a URL: there may be a password in it."""
    for url in urls.split(","):
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError:
            raise ValueError(f"is no URL; it must read {URL_RULE}") from None
        whole = parts.path.strip("/") or parts.query or parts.fragment
        if parts.scheme not in ("nats", "tls") or not parts.hostname or port == 0 or whole:
            raise ValueError(f"must read {URL_RULE}")
    return urls


def nats_travels_in_the_open(urls: str) -> bool:
    """Whether a connection may leave this machine without TLS."""
    return any(
        parts.scheme != "tls" and not is_here(parts.hostname or "")
        for parts in (urlsplit(url.strip()) for url in urls.split(","))
    )
