"""The identity registry: the rules of identities, single changes and many at once. Knows no wire and no database."""

from methodhub.core.registry.identities import CACHE_SIZE, Registry
from methodhub.core.registry.rules import (
    check_active,
    device_not_found,
    invalid,
    lost_a_credential,
    module_not_found,
    not_found,
)

__all__ = [
    "CACHE_SIZE",
    "Registry",
    "check_active",
    "device_not_found",
    "invalid",
    "lost_a_credential",
    "module_not_found",
    "not_found",
]
