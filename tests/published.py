"""What is written, held against the schema that is published of it."""

from typing import Any

import jsonschema

from loadbench.report.schema import schema


def holds(kind: str, found: dict[str, Any]) -> None:
    """It is as the schema says, and has no name that the schema does not tell of."""
    published = schema(kind)
    jsonschema.Draft202012Validator(published).validate(found)
    parts = [
        published["$defs"][one["$ref"].rpartition("/")[2]]
        for one in published.get("anyOf", [published])
    ]
    if kind == "run":
        parts = [one for one in parts if found["kind"] in one["properties"]["kind"]["enum"]]
    assert any(set(found) <= set(one["properties"]) for one in parts), kind
