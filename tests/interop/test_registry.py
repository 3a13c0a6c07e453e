"""The identity registry through both service SDKs, with what each raises where it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import RunningHub
from tests.interop.peers import Device, Failure, Language, Service

KEY_1 = "bWV0aG9kaHViLWludGVyb3Ata2V5LW51bWJlci0wMDE="
KEY_2 = "bWV0aG9kaHViLWludGVyb3Ata2V5LW51bWJlci0wMDI="
PRINT_1 = "A1" * 32
PRINT_2 = "B2" * 32


@pytest.fixture
def python(hub: RunningHub) -> Iterator[Service]:
    with Service(hub, "python") as service:
        yield service


@pytest.fixture
def node(hub: RunningHub) -> Iterator[Service]:
    with Service(hub, "node") as service:
        yield service


def refused(failure: Any, name: str, status: int, language: Language, node_type: str = "") -> None:
    assert isinstance(failure, Failure), f"it succeeded: {failure}"
    assert (failure.name, failure.status, failure.header) == (name, status, name)
    assert failure.type == ("HttpOperationError" if language == "python" else node_type)


def test_python_devices(python: Service) -> None:
    made = python.ask("create_device_with_sas", "own", KEY_1, KEY_2, "enabled")
    assert made["authentication"]["symmetric_key"] == {"primary_key": KEY_1, "secondary_key": KEY_2}
    assert made["status"] == "enabled"
    generated = python.ask("create_device_with_sas", "generated", None, None, "enabled")
    keys = generated["authentication"]["symmetric_key"]
    assert len(keys["primary_key"]) >= 44
    assert keys["primary_key"] != keys["secondary_key"]
    certified = python.ask("create_device_with_x509", "thumb", PRINT_1, PRINT_2, "disabled")
    assert certified["authentication"]["type"] == "selfSigned"
    assert certified["authentication"]["x509_thumbprint"] == {
        "primary_thumbprint": PRINT_1,
        "secondary_thumbprint": PRINT_2,
    }
    authority = python.ask("create_device_with_certificate_authority", "signed", "enabled")
    assert authority["authentication"]["type"] == "certificateAuthority"
    assert python.ask("get_device", "own")["generation_id"] == made["generation_id"]
    assert {each["device_id"] for each in python.ask("get_devices")} == {"own", "generated", "thumb", "signed"}
    assert len(python.ask("get_devices", 2)) == 2
    refused(python.ask("create_device_with_sas", "own", KEY_1, KEY_2, "enabled"), "DeviceAlreadyExists", 409, "python")
    assert python.ask("delete_device", "own") is None
    refused(python.ask("get_device", "own"), "DeviceNotFound", 404, "python")


def test_python_updates_and_if_match(python: Service) -> None:
    made = python.ask("create_device_with_sas", "d1", KEY_1, KEY_2, "enabled")
    changed = python.ask("update_device_with_sas", "d1", made["etag"], KEY_2, KEY_1, "disabled", None, "maintenance")
    assert changed["status"] == "disabled"
    assert changed["etag"] != made["etag"]
    assert changed["authentication"]["symmetric_key"]["primary_key"] == KEY_2
    stale = python.ask("update_device_with_sas", "d1", made["etag"], KEY_1, KEY_2, "enabled")
    refused(stale, "PreconditionFailed", 412, "python")
    refused(python.ask("delete_device", "d1", made["etag"]), "PreconditionFailed", 412, "python")
    assert python.ask("delete_device", "d1", changed["etag"]) is None
    again = python.ask("create_device_with_sas", "d1", None, None, "enabled")
    assert again["generation_id"] != made["generation_id"]


def test_python_modules(python: Service) -> None:
    python.ask("create_device_with_sas", "d1", None, None, "enabled")
    made = python.ask("create_module_with_sas", "d1", "m1", "operator", KEY_1, KEY_2)
    assert (made["device_id"], made["module_id"], made["managed_by"]) == ("d1", "m1", "operator")
    python.ask("create_module_with_x509", "d1", "m2", "", PRINT_1, PRINT_2)
    assert {each["module_id"] for each in python.ask("get_modules", "d1")} == {"m1", "m2"}
    duplicate = python.ask("create_module_with_sas", "d1", "m1", "", KEY_1, KEY_2)
    refused(duplicate, "ModuleAlreadyExistsOnDevice", 409, "python")
    changed = python.ask("update_module_with_sas", "d1", "m1", "somebody", made["etag"], KEY_2, KEY_1)
    assert changed["managed_by"] == "somebody"
    assert python.ask("delete_module", "d1", "m1") is None
    refused(python.ask("get_module", "d1", "m1"), "ModuleNotFound", 404, "python")
    assert python.ask("get_module", "d1", "m2")["module_id"] == "m2"
    python.ask("delete_device", "d1")
    refused(python.ask("get_modules", "d1"), "DeviceNotFound", 404, "python")


def test_node_devices(node: Service) -> None:
    keys = {"primaryKey": KEY_1, "secondaryKey": KEY_2}
    made = node.ask("create", {"deviceId": "own", "status": "enabled", "authentication": {"symmetricKey": keys}})
    assert made["authentication"]["symmetricKey"] == keys
    generated = node.ask("create", {"deviceId": "generated"})
    assert len(generated["authentication"]["symmetricKey"]["primaryKey"]) >= 44
    prints = {"primaryThumbprint": PRINT_1, "secondaryThumbprint": PRINT_2}
    certified = node.ask("create", {"deviceId": "thumb", "authentication": {"x509Thumbprint": prints}})
    assert certified["authentication"]["type"] == "selfSigned"
    assert certified["authentication"]["x509Thumbprint"] == prints
    assert {each["deviceId"] for each in node.ask("list")} == {"own", "generated", "thumb"}
    assert node.ask("get", "own")["generationId"] == made["generationId"]
    # The SDK's update always sends If-Match: "*".
    changed = node.ask("update", {**made, "status": "disabled", "statusReason": "maintenance"})
    assert (changed["status"], changed["statusReason"]) == ("disabled", "maintenance")
    assert changed["etag"] != made["etag"]
    duplicate = node.ask("create", {"deviceId": "own"})
    refused(duplicate, "DeviceAlreadyExists", 409, "node", "DeviceAlreadyExistsError")
    node.ask("delete", "own")
    refused(node.ask("get", "own"), "DeviceNotFound", 404, "node", "DeviceNotFoundError")


def test_node_modules(node: Service) -> None:
    node.ask("create", {"deviceId": "d1"})
    made = node.ask("addModule", {"deviceId": "d1", "moduleId": "m1", "managedBy": "operator"})
    assert (made["deviceId"], made["moduleId"], made["managedBy"]) == ("d1", "m1", "operator")
    duplicate = node.ask("addModule", {"deviceId": "d1", "moduleId": "m1"})
    refused(duplicate, "ModuleAlreadyExistsOnDevice", 409, "node", "DeviceAlreadyExistsError")
    assert [each["moduleId"] for each in node.ask("getModulesOnDevice", "d1")] == ["m1"]
    changed = node.ask("updateModule", {**made, "managedBy": "somebody"})
    assert changed["managedBy"] == "somebody"
    assert node.ask("getModule", "d1", "m1")["etag"] == changed["etag"]
    # Given the whole module, the SDK sends its etag.
    refused(node.ask("removeModule", made), "PreconditionFailed", 412, "node", "InvalidEtagError")
    node.ask("removeModule", changed)
    refused(node.ask("getModule", "d1", "m1"), "ModuleNotFound", 404, "node", "Error")


def test_a_policy_without_the_right_may_not_write(hub: RunningHub, python: Service, node: Service) -> None:
    reader = hub.policy_connection_string("registryRead")
    found = python.ask("create_device_with_sas", "d1", None, None, "enabled", connection=reader)
    refused(found, "IotHubUnauthorizedAccess", 401, "python")
    found = node.ask("create", {"deviceId": "d1"}, connection=reader)
    refused(found, "IotHubUnauthorizedAccess", 401, "node", "UnauthorizedError")


@pytest.mark.parametrize("creator", ["python", "node"])
def test_a_device_made_with_an_sdk_connects_with_the_key_it_was_given(hub: RunningHub, creator: Language) -> None:
    with Service(hub, creator) as service:
        if creator == "python":
            service.ask("create_device_with_sas", "made", KEY_1, KEY_2, "enabled")
        else:
            keys = {"primaryKey": KEY_1, "secondaryKey": KEY_2}
            service.ask("create", {"deviceId": "made", "authentication": {"symmetricKey": keys}})
        # The secondary key is as good as the primary.
        text = f"HostName={hub.address};DeviceId=made;SharedAccessKey={KEY_2}"
        with Device(hub, "node" if creator == "python" else "python", "made", connection_string=text) as device:
            device.is_ready()
            seen = service.ask("get_device" if creator == "python" else "get", "made")
            assert seen["connection_state" if creator == "python" else "connectionState"] == "Connected"
