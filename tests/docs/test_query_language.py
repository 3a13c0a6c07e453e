"""The page of the query language: each example is run, and answers what the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path

from methodhub.core.identity import Target
from methodhub.core.query.builder import AGGREGATES, FUNCTIONS, MAX_NESTING
from methodhub.core.query.names import JOB_NAMES, TWIN_NAMES
from tests.harness import RunningHub

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "query-language.md").read_text(encoding="utf-8")
TWINS = json.loads(PAGE.split("```json\n")[1].split("```")[0])
EXAMPLES = re.findall(r"```sql\n(.*?)```\n\n```json\n(.*?)```", PAGE, flags=re.DOTALL)


def test_each_example_answers_what_the_page_says(hub: RunningHub) -> None:
    assert len(EXAMPLES) == PAGE.count("```sql")
    for twin in TWINS:
        hub.create_device(twin["deviceId"])
        update = {"tags": twin["tags"], "properties": {"desired": twin["properties"].get("desired", {})}}
        with hub.service() as client:
            assert client.patch(f"/twins/{twin['deviceId']}", json=update).status_code == 200
        hub.run(hub.hub.twins.report(Target(twin["deviceId"]), twin["properties"]["reported"]))
    with hub.service() as client:
        for query, answer in EXAMPLES:
            response = client.post("/devices/query", json={"query": query})
            assert response.json() == json.loads(answer), query


def test_every_name_is_on_the_page() -> None:
    named = [*FUNCTIONS, *AGGREGATES, *TWIN_NAMES, *JOB_NAMES]
    assert [name for name in named if name not in PAGE] == []
    assert f"{MAX_NESTING} levels of nesting" in PAGE
