"""The composition root: build, start, drain, stop. The only room that knows every adapter and the settings."""

from methodhub.process import DataDirectory, ReadyFacts, StartError
from methodhub.server.certificates import CERTIFICATE_CHECK_INTERVAL
from methodhub.server.domain import DATABASE_NAME
from methodhub.server.hub import Hub
from methodhub.server.run import offline_api, serve

__all__ = [
    "CERTIFICATE_CHECK_INTERVAL",
    "DATABASE_NAME",
    "DataDirectory",
    "Hub",
    "ReadyFacts",
    "StartError",
    "offline_api",
    "serve",
]
