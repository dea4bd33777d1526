"""Targets: what is shipped is sound, what is broken is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from osbc_deploy.chip.target import larger_targets, load_target, target_names
from osbc_deploy.errors import TargetError


def test_shipped_targets_load_and_every_number_has_a_source() -> None:
    assert set(target_names()) == {
        "hala-point",
        "kapoho-point",
        "loihi1",
        "loihi2",
        "loihi2-2022",
        "loihi2-brief",
        "loihi2-netx",
        "loihi2-netx-sparse",
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


def test_systems_that_are_large_enough_are_found_and_none_beyond_the_largest() -> None:
    chip = load_target("loihi2")
    assert [t.name for t in larger_targets(chip, 500)] == ["kapoho-point", "hala-point"]
    assert [t.name for t in larger_targets(chip, 140_544)] == ["hala-point"]
    assert larger_targets(chip, 140_545) == []


def test_what_contradicts_itself_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    fact = '{{ value = {}, unit = "x", grade = "assumed", source = "brief" }}'
    head = 'schema = 1\nname = "bad"\ntitle = "bad"\n'
    for text, words in (
        ('inherits = "loihi2"\n[memory]\npool_words = ' + fact.format(100), "exceeds memory.pool"),
        ('inherits = "loihi2"\n[mesh]\nsize = ' + fact.format([2, 3]), "fewer places than 120"),
        ('inherits = "loihi2"\n[memory]\nmodel = "shared"', "memory.shared"),
        ('inherits = "loihi2"\n[memory.caps]\nkernel = ' + fact.format(3), "kernel: Extra"),
    ):
        file.write_text(head + text)
        with pytest.raises(TargetError, match=words):
            load_target(str(file))


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(TargetError, match="loihi2-sim"):
        load_target("loihi3")
    with pytest.raises(TargetError, match="cannot be read"):
        load_target("missing.toml")
