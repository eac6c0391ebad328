"""The JSON Schema is that of the classes that load specs."""

import json

from mixc.compiler.language.schema import AttentionSpec, RecurrenceSpec, SpecDocument, json_schema


def test_every_key_is_in_the_schema():
    schema = json_schema()
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert set(schema["properties"]) == set(SpecDocument.keys())
    assert schema["required"] == ["mixer", "inputs", "outputs"]
    assert schema["additionalProperties"] is False
    attention = schema["$defs"]["AttentionSpec"]
    assert set(attention["properties"]) == set(AttentionSpec.keys())
    assert attention["required"] == ["over"]
    assert "^score\\[" in attention["patternProperties"]
    assert "with" in schema["$defs"]["StageSpec"]["properties"]
    json.dumps(schema)


def test_a_step_holds_lines_and_loops():
    schema = json_schema()
    recurrence = schema["$defs"]["RecurrenceSpec"]
    assert set(recurrence["properties"]) == set(RecurrenceSpec.keys())
    assert recurrence["required"] == ["over", "state", "step"]
    lines = [{"type": "string"}, {"$ref": "#/$defs/RoundsSpec"}]
    assert recurrence["properties"]["step"]["items"]["oneOf"] == lines
    assert schema["$defs"]["RoundsSpec"]["properties"]["step"]["items"]["oneOf"] == lines
    state = recurrence["properties"]["state"]["additionalProperties"]["oneOf"]
    assert state[1] == {"$ref": "#/$defs/StateSpec"}


def test_values_have_types_that_editors_check():
    schema = json_schema()
    params = schema["properties"]["params"]["additionalProperties"]["oneOf"]
    assert params[0]["type"] == ["string", "number", "boolean"]
    assert params[1] == {"$ref": "#/$defs/ParamSpec"}
    assert schema["$defs"]["InputSpec"]["properties"]["sorted"] == {
        "default": False,
        "title": "Sorted",
        "type": "boolean",
    }
