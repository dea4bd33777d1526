"""Documents that others wrote are parsed, or refused with a ValueError, whatever is in them."""

from __future__ import annotations

import pytest

from osbc_deploy.parsing import parse_json, parse_toml


def test_documents_are_read_as_they_are() -> None:
    assert parse_json('{"a": [1, 2.5, null, "\\ud800", true]}') == {
        "a": [1, 2.5, None, "\ud800", True]
    }
    assert parse_json(b"[" * 32 + b"]" * 32)
    assert parse_json(f"[{2**64 - 1}, {-(2**63)}]") == [2**64 - 1, -(2**63)]
    assert parse_toml("a = 1\nb.c = inf\n[d]\ne = [[]]") == {
        "a": 1,
        "b": {"c": float("inf")},
        "d": {"e": [[]]},
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Expecting"),
        ("[" * 33 + "]" * 33, "nested more than 32 deep"),
        ("[" * 10**6, "nested more than 32 deep"),
        ('{"a":' * 10**5, "nested more than 32 deep"),
        ("9" * 5000, "thousands of digits"),
        (str(2**64), "an integer of 65 bits"),
        (f"[[{-(2**63) - 1}]]", "an integer of 64 bits"),
        ("NaN", "NaN is not a number in JSON"),
        ("[-Infinity]", "-Infinity is not a number in JSON"),
        ("1e999", "too large for a number"),
        ('{"a": 1, "b": {"c": 1, "d": 2, "c": 1}}', "the key 'c' twice"),
        (b"\xff\xfe\x00", "decode"),
    ],
)
def test_absurd_json_is_refused(text: str | bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = ", "Invalid value"),
        ("a = " + "[" * 10**5, "nested more than 32 deep"),
        ("a = " + "{b = " * 10**4, "Invalid|nested"),
        ("a = " + "[" * 33 + "]" * 33, "nested more than 32 deep"),
        ("[" + ".".join("a" * 33) + "]", "more than 32 parts"),
        (" . ".join(["'a'"] * 10**5) + " = 1", "more than 32 parts"),
        ("a = 0x" + "f" * 10**5, "an integer of 400,000 bits"),
        ("a = " + "1" * 10**5, "thousands of digits"),
        ("a = 1" + "0" * 400, "an integer of 1,329 bits"),
    ],
)
def test_absurd_toml_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_toml(text)
