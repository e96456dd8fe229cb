"""Values drawn from the service's own OpenAPI description, and what every answer must be."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import httpx
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

BOUNDED = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just(10**400), st.just(-1)
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
TEXT = st.text(max_size=40)
# What HTTP lets stand in a header; clients send nothing else.
HEADER_TEXT = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=40)


Schema = dict[str, Any]


def matching(schema: Schema, definitions: Schema | None = None) -> st.SearchStrategy[Any]:
    """Values that a JSON schema of this description allows; fields that need not be there are there or not."""
    if "anyOf" in schema:
        return st.one_of(*(matching(each, definitions) for each in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    kind = schema.get("type")
    if kind == "object":
        fields = {name: matching(each, definitions) for name, each in schema["properties"].items()}
        needed = set(schema.get("required", []))
        optional = {name: field for name, field in fields.items() if name not in needed}
        return st.fixed_dictionaries({name: fields[name] for name in fields if name in needed}, optional=optional)
    if kind == "array":
        most = min(schema.get("maxItems", 5), 20)
        return st.lists(matching(schema["items"], definitions), min_size=schema.get("minItems", 0), max_size=most)
    if kind == "integer":
        return st.integers(schema.get("minimum"), schema.get("maximum"))
    if kind == "string":
        if "pattern" in schema:
            return st.from_regex(schema["pattern"], fullmatch=True)
        return st.text(max_size=schema.get("maxLength", 20))
    if kind in ("boolean", "null"):
        return st.booleans() if kind == "boolean" else st.none()
    assert kind in ("number", None), schema
    low, high = schema.get("minimum", -1), schema.get("maximum", 1)
    return st.floats(max(low, schema.get("exclusiveMinimum", low)), high)


def a_value(schema: Schema, random: Random) -> Any:
    """One value that a JSON schema of this description allows, as `matching`, of a seeded generator.

    For bodies of many fields: hypothesis itself, on a busy machine, once found its draws of such a one inconsistent.
    """
    if "anyOf" in schema:
        return a_value(random.choice(schema["anyOf"]), random)
    if "enum" in schema or "const" in schema:
        return random.choice(schema.get("enum") or [schema["const"]])
    kind = schema.get("type")
    if kind == "object":
        needed = set(schema.get("required", []))
        fields = schema["properties"].items()
        return {name: a_value(each, random) for name, each in fields if name in needed or random.random() < 0.5}
    if kind == "array":
        least, most = schema.get("minItems", 0), min(schema.get("maxItems", 5), 20)
        return [a_value(schema["items"], random) for _ in range(random.randint(least, max(least, most)))]
    if kind == "integer":
        low, high = schema.get("minimum", -(10**6)), schema.get("maximum", 10**6)
        return random.choice([low, high, random.randint(low, high)])
    if kind == "string":
        if "pattern" in schema:
            assert schema["pattern"] == "^[0-9a-f]{64}$", "teach it this pattern"
            return f"{random.getrandbits(256):064x}"
        letters = [chr(random.choice([random.randrange(32, 127), random.randrange(0x20, 0xD7FF)])) for _ in range(40)]
        return "".join(letters)[: random.randint(0, min(40, schema.get("maxLength", 20)))]
    if kind in ("boolean", "null"):
        return random.random() < 0.5 if kind == "boolean" else None
    assert kind in ("number", None), schema
    low, high = schema.get("minimum", -1), schema.get("maximum", 1)
    low = max(low, schema.get("exclusiveMinimum", low))
    return random.choice([high, random.uniform(low, high), low + (high - low) * random.random() ** 8])


def check(document: dict[str, Any], method: str, path: str, answer: httpx.Response) -> None:
    """The status is one that the description has; a refusal has the described body."""
    assert answer.status_code < 500, answer.text
    assert str(answer.status_code) in document["paths"][path][method]["responses"], answer.text
    if answer.status_code >= 400:
        assert all(isinstance(answer.json()[name], str) for name in ("error", "message", "what_to_do"))


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()  # NaN and infinity as Python and some other clients write them
