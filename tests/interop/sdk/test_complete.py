"""No method of the service SDKs that concerns this hub is without a test of its own in this folder."""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest

from tests.interop.peers import Service
from tests.interop.sdk import test_node_jobs, test_node_registry, test_python_jobs, test_python_registry

CONFIGURATIONS = "automatic device management is not part of this hub"
EXCLUDED = {
    "send_c2d_message": "cloud-to-device messages are not part of this hub",
    "from_connection_string": "every other test begins with it",
    "from_token_credential": "tests/interop/limits/test_bearer.py has it, with a real issuer",
    "addConfiguration": CONFIGURATIONS,
    "getConfiguration": CONFIGURATIONS,
    "getConfigurations": CONFIGURATIONS,
    "updateConfiguration": CONFIGURATIONS,
    "removeConfiguration": CONFIGURATIONS,
    "applyConfigurationContentOnDevice": CONFIGURATIONS,
    "toJSON": "it reaches no hub",
}


def sources_of(*modules: ModuleType) -> dict[str, str]:
    """Names and sources of the tests."""
    return {
        name: inspect.getsource(test)
        for module in modules
        for name, test in inspect.getmembers(module, inspect.isfunction)
        if name.startswith("test_")
    }


def missing(methods: list[str], tests: dict[str, str], prefix: str = "") -> list[str]:
    """Methods without a test that is named after it and calls it."""
    return [
        method
        for method in methods
        if method not in EXCLUDED and f'"{method}"' not in tests.get(f"test_{prefix}{method}", "")
    ]


@pytest.mark.parametrize(
    ("kind", "module"),
    [("IoTHubRegistryManager", test_python_registry), ("IoTHubJobManager", test_python_jobs)],
    ids=["registry", "jobs"],
)
def test_every_method_of_the_python_sdk(python_service: Service, kind: str, module: ModuleType) -> None:
    methods = python_service.ask("methods", on=kind)
    assert len(methods) >= 10
    assert missing(methods, sources_of(module)) == []


@pytest.mark.parametrize("kind", ["Registry", "Twin", "JobClient", "Query"])
def test_every_method_of_the_node_sdk(node_service: Service, kind: str) -> None:
    methods = node_service.ask("methods", on=kind)
    assert len(methods) >= 2
    assert missing(methods, sources_of(test_node_registry, test_node_jobs), f"{kind}_") == []


def test_a_method_without_a_test_is_found() -> None:
    tests = {"test_get_twin": 'python("get_twin")', "test_get": "pass"}
    assert missing(["get_twin", "get", "new", "toJSON"], tests) == ["get", "new"]
