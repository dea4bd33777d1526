"""Targets: what is shipped is sound, what is broken is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from osbc_deploy.chip.target import load_target, target_names
from osbc_deploy.errors import TargetError


def test_shipped_targets_load_and_every_number_has_a_source() -> None:
    assert set(target_names()) == {
        "hala-point",
        "kapoho-point",
        "loihi1",
        "loihi2",
        "loihi2-2022",
        "loihi2-brief",
        "loihi2-sim",
        "speck",
        "xylo-audio2",
    }
    for name in target_names():
        target = load_target(name)
        assert target.name == name
        facts = target.facts()
        assert facts
        for place, fact in facts.items():
            assert target.sources[fact.source], place
            assert fact.grade in ("published", "derived", "assumed")


def test_a_user_file_inherits_and_overrides(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'schema = 1\nname = "mine"\ninherits = "loihi2-sim"\ntitle = "half a chip"\n'
        '[sources]\nme = "measured here"\n'
        '[chip]\ncores = { value = 60, unit = "cores", grade = "assumed", source = "me" }\n'
    )
    target = load_target(str(file))
    assert target.chip.cores.value == 60
    assert target.backend == "lava"
    assert target.memory.limits() == load_target("loihi2").memory.limits()
    assert target.digest != load_target("loihi2-sim").digest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("schema = ", "not valid TOML"),
        ('name = "x"', "schema None is not 1"),
        ('schema = 1\nname = "x"', "memory: Field required"),
        ('schema = 1\nname = "x"\ninherits = "loihi9"', "'loihi9'"),
        ('schema = 1\nname = "x"\ninherits = "loihi2"\ncolor = 3', "color: Extra inputs"),
        (
            'schema = 1\ninherits = "loihi2"\nname = "x"\n[chip]\n'
            'cores = { value = 0, unit = "cores", grade = "guess", source = "papers" }',
            "chip.cores.value",
        ),
        (
            'schema = 1\ninherits = "loihi2"\nname = "x"\n[chip]\n'
            'cores = { value = 9, unit = "cores", grade = "assumed", source = "nowhere" }',
            r"chip\.cores \(nowhere\)",
        ),
    ],
)
def test_broken_files_are_named(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(TargetError, match=words):
        load_target(str(file))


def test_a_circle_of_inheritance_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(f'schema = 1\nname = "a"\ninherits = "{file}"')
    with pytest.raises(TargetError, match="circle"):
        load_target(str(file))


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(TargetError, match="loihi2-sim"):
        load_target("loihi3")
    with pytest.raises(TargetError, match="cannot be read"):
        load_target("missing.toml")
