"""JSON is read one way or not at all."""

from __future__ import annotations

import json

import pytest

from osbc_deploy.json_reading import parse_json


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, -2.5e3, true, null, "é\\u00e9"], "b": {}}',
        "[]",
        "0",
        '"x"',
        "9223372036854775807",
    ],
)
def test_plain_json_is_what_it_is(text: str) -> None:
    assert parse_json(text) == parse_json(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' comes twice"),
        ('{"a": NaN}', "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ("[1e999]", "too large"),
        ("9223372036854775808", "beyond 64 bits"),
        ("-" + "9" * 10_000, "beyond 64 bits"),
        ("[" * 65 + "]" * 65, "nested deeper"),
        ("[" * 100_000, "nested deeper"),
        ('{"a":' * 65 + "1" + "}" * 65, "nested deeper"),
        ("", "Expecting value"),
        ("[1,]", "Expecting value|Illegal trailing comma"),
        ("{} {}", "Extra data"),
    ],
)
def test_anything_else_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_json(text)


@pytest.mark.parametrize("content", [b"\xff\xfe[\x00]\x00", b"\xef\xbb\xbf[]", b'"\xff"'])
def test_only_plain_utf_8_is_text(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"utf-8|BOM"):
        parse_json(content)


def test_64_levels_are_read() -> None:
    assert parse_json("[" * 64 + "]" * 64)
