"""The interop tests themselves: what they do where the Node SDKs are not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop import peers


def test_missing_node_packages_fail_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "NODE_MODULES", tmp_path)
    with pytest.raises(pytest.fail.Exception, match="npm install --no-package-lock --no-audit --no-fund"):
        peers.node_sdks()
