"""Structured logs on stderr, with secrets masked wherever they stand. Nothing is configured at import.

Knows how secrets look, not whose they are.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, Set
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

MASK = "***"

_SECRET_NAME = re.compile(r"key|password|passwd|token|authorization|secret|signature", re.IGNORECASE)

_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A private key, whole or cut off; also where its line feeds are escaped.
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), MASK),
    (re.compile(r"(SharedAccessSignature(?:\s|%20|\+)+)[^\s\"']+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"(Bearer\s+)[^\s\"',]+", re.IGNORECASE), rf"\1{MASK}"),
    # Also percent-encoded, in one query parameter of a URL.
    (re.compile(r"\b(sig\s*(?:=|%3d))[^&\s\"']+", re.IGNORECASE), rf"\1{MASK}"),
    # name=value, name: value, "name": "value": connection strings, JSON, reprs. No pattern here may begin with a
    # repetition: peers choose what is logged, and a long text would then take quadratic time.
    (
        re.compile(
            r"((?:access_?|primary_?|secondary_?|symmetric_?|private_?|api_?|signing_?|master_?)key|password"
            r"|passwd|token|authorization|secret)"
            r"([\"']?\s*(?:=|%3d|:)\s*)(b?\"[^\"]*\"?|b?'[^']*'?|\[[^\]]*|\([^)]*|\{[^}]*|[^\s;,&\"')}\]]+)",
            re.IGNORECASE,
        ),
        rf"\1\2{MASK}",
    ),
)


def mask_text(text: str) -> str:
    """The text with every secret that shows itself replaced: keys, signatures, tokens, private keys."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def mask_value(value: object) -> object:
    """The same for any value; containers are walked, other objects become their masked repr."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return mask_text(bytes(value).decode("utf-8", "backslashreplace"))
    if isinstance(value, Mapping):
        return {str(mask_value(name)): _mask_named(str(name), item) for name, item in value.items()}
    if isinstance(value, list | tuple | Set):
        return [mask_value(item) for item in value]
    return mask_text(repr(value))


def _mask_named(name: str, value: object) -> object:
    if value is None or isinstance(value, bool) or not _SECRET_NAME.search(name):
        return mask_value(value)
    return MASK


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The processor: last before rendering, so that it also sees formatted exceptions."""
    return {name: _mask_named(name, value) for name, value in event.items()}


def configure(level: str = "info", format: str = "console", stream: TextIO | None = None) -> None:
    """Send structlog, the standard library's logging and warnings to `stream` (stderr), masked.

    `level` is debug, info, warning or error; `format` is console or json.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    target = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(sort_keys=False)
        if format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        )
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.StackInfoRenderer(),
                # Plain tracebacks: local variables may hold keys that look like nothing in particular.
                structlog.processors.format_exc_info,
                mask_secrets,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Other people's libraries tell what they do to the letter, keys that a statement carries included [HUB-no-keys].
    root.setLevel(max(number, logging.WARNING))
    logging.getLogger("methodhub").setLevel(number)
    # uvicorn brings handlers of its own, and a line per request, which the hub's metrics count instead.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        foreign = logging.getLogger(name)
        foreign.handlers.clear()
        foreign.propagate = True
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> Any:
    """A structured logger whose lines carry this name."""
    return structlog.stdlib.get_logger(name)
