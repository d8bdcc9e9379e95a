"""JSON Schemas of a testcase and of a fragment, for editors and other programs: made from the models, never typed.

In: `harness.scenario.model` and `meanings`. Out: schemas as plain data (draft 2020-12). Rule: what the loader accepts the schema
accepts; it refuses less than the loader does, which knows references and links, too.
"""

from __future__ import annotations

import json
from typing import Any

from harness.plan.nics import MODELS
from harness.scenario.fragment import ABOUT, NEEDS, PARAMS, SECTIONS
from harness.scenario.include import INCLUDE
from harness.scenario.meanings import MEANINGS, UNLESS
from harness.scenario.model import Scenario

FILE, FRAGMENT_FILE = "testcase.schema.json", "fragment.schema.json"  # beside this module
COMMENT = "# yaml-language-server: $schema="
AXIS = {"type": "string", "pattern": r"\$\{[a-z][a-z0-9_]*\}", "description": "the value of an axis of the matrix"}
MATRIX = {
    "type": "object",
    "propertyNames": {"pattern": "^[a-z][a-z0-9_]{0,14}$"},
    "additionalProperties": {
        "type": "array",
        "minItems": 1,
        "uniqueItems": True,
        "items": {"type": ["string", "integer"]},
    },
}
PARAMETER: dict[str, Any] = {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,14}$"}
PATH = {
    "type": "string",
    "pattern": r"\.fragment\.yaml$",
    "description": "path of a fragment, relative to this file's folder",
}
INCLUDED = {
    "anyOf": [
        PATH,
        {
            "type": "object",
            "properties": {
                "file": PATH,
                "with": {
                    "type": "object",
                    "propertyNames": PARAMETER,
                    "description": "values of the fragment's parameters",
                },
            },
            "required": ["file"],
            "additionalProperties": False,
        },
    ]
}
SEVERAL = {"anyOf": [{"$ref": "#/$defs/Include"}, {"type": "array", "items": {"$ref": "#/$defs/Include"}}]}
INCLUDED_STEP = {"properties": {"steps": {"contains": {"required": [INCLUDE]}}}, "required": ["steps"]}
FILLED = ("params",)  # by the loader
ONE_KEY = ("Step", "Expect")
EXPECTATIONS = "Expect"

Schema = dict[str, Any]


def schema() -> Schema:
    """The schema of one file."""
    made = Scenario.model_json_schema(by_alias=True)
    models = {"Scenario": made, **made["$defs"]}
    for name, model in models.items():
        if "properties" in model:
            _describe(name, model)
    _file(made)
    models["Nic"]["properties"]["model"] |= {"enum": list(MODELS)}
    for model in models.values():
        for key, value in model.get("properties", {}).items():
            model["properties"][key] = _replaceable(value)
    made["$defs"] |= {"Axis": AXIS, "Include": INCLUDED}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "a testcase of the netpoll harness",
        **made,
    }


def fragment_schema() -> Schema:
    """The schema of a fragment: parts of a testcase, in which any value may be that of a parameter."""
    made = schema()
    keys: Schema = {
        ABOUT: {"type": "string", "minLength": 10},
        NEEDS: {"type": "array", "items": PARAMETER},
        PARAMS: {"type": "object", "propertyNames": PARAMETER},
        INCLUDE: SEVERAL,
    }
    models = [model for model in made["$defs"].values() if "properties" in model]
    for model in models:
        model["properties"] = {key: _given_by_parameter(value) for key, value in model["properties"].items()}
    parts = {key: made["properties"][key] for key in SECTIONS}
    return {
        "$schema": made["$schema"],
        "title": "a fragment of testcases of the netpoll harness",
        "description": "what several testcases have in common",
        "type": "object",
        "properties": {key: {**value, "description": MEANINGS["Fragment"][key]} for key, value in keys.items()} | parts,
        "required": [ABOUT],
        "additionalProperties": False,
        "$defs": made["$defs"],
    }


def text(made: Schema) -> str:
    """A schema as the file that is shipped."""
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def _file(made: Schema) -> None:
    """The whole file: what the loader fills in cannot be written, the matrix can."""
    for key in FILLED:
        del made["properties"][key]
    made["properties"]["matrix"] = {**MATRIX, "description": MEANINGS["Scenario"]["matrix"]}
    required = [key for key in made.pop("required") if key != "name"]
    fragments_have = [key for key in required if key in SECTIONS]
    made["required"] = [key for key in required if key not in SECTIONS]
    made["anyOf"] = [{"required": fragments_have}, {"required": [INCLUDE]}, INCLUDED_STEP]
    made["properties"] = {INCLUDE: {**SEVERAL, "description": MEANINGS["Scenario"][INCLUDE]}, **made["properties"]}
    step = made["$defs"]["Step"]["properties"]
    step[INCLUDE] = {"anyOf": [{"$ref": "#/$defs/Include"}], "description": MEANINGS["Step"][INCLUDE]}
    made["description"] = "a guest, the two ends of a flow, steps, and what is expected"


def _describe(name: str, model: Schema) -> None:
    """The sentence of each key; `from` of YAML is `from_` of Python."""
    meanings = MEANINGS.get(name, {})
    model.pop("title", None)
    for key, value in model["properties"].items():
        value.pop("title", None)
        said = meanings.get(key, meanings.get(f"{key}_", ""))
        unless = UNLESS.get(key, "") if name == EXPECTATIONS else ""
        model["properties"][key] = _given(value) | {
            "description": said + (f". Not reached unless {unless}" if unless else "")
        }
    if name in ONE_KEY:
        model |= {"minProperties": 1, "maxProperties": 1}


def _given(value: Schema) -> Schema:
    """Without `or null`: who writes a key gives it a value."""
    value = {key: inner for key, inner in value.items() if not (key == "default" and inner is None)}
    kinds = [kind for kind in value.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) == 1:
        return {**{key: inner for key, inner in value.items() if key != "anyOf"}, **kinds[0]}
    return value


def _given_by_parameter(value: Schema) -> Schema:
    """Whatever stands there, a parameter of the fragment can bring it, a list or mapping, too."""
    if {"$ref": "#/$defs/Axis"} in value.get("anyOf", []):
        return value
    outside: Schema = {key: value[key] for key in ("description", "default") if key in value}
    return {**outside, "anyOf": [{k: v for k, v in value.items() if k not in outside}, {"$ref": "#/$defs/Axis"}]}


def _replaceable(value: Schema) -> Schema:
    """Any single value may also be the value of an axis, which the loader puts in first."""
    if value.get("type") == "array" and isinstance(value.get("items"), dict):
        return {**value, "items": _replaceable(value["items"])}
    if value.get("type") == "array" and "prefixItems" in value:
        return {**value, "prefixItems": [_replaceable(item) for item in value["prefixItems"]]}
    plain = value.get("type") == "string" and not {"enum", "const", "pattern"} & value.keys()
    if "anyOf" in value:
        return {**value, "anyOf": [*value["anyOf"], {"$ref": "#/$defs/Axis"}]}
    if plain or "$ref" in value or "oneOf" in value or value.get("type") == "object":
        return value
    outside: Schema = {key: value[key] for key in ("description", "default") if key in value}
    return {**outside, "anyOf": [{k: v for k, v in value.items() if k not in outside}, {"$ref": "#/$defs/Axis"}]}
