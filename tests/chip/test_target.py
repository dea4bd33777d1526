"""Targets: what is shipped is sound, what is broken is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from osbc_deploy.chip.target import larger_targets, load_target, target_names
from osbc_deploy.errors import TargetError


def test_shipped_targets_load_and_every_number_has_a_source() -> None:
    assert set(target_names()) == {
        "cortex-m0plus",
        "cortex-m4",
        "cortex-m7",
        "hala-point",
        "kapoho-point",
        "loihi1",
        "loihi1-shared",
        "loihi2",
        "loihi2-2022",
        "loihi2-brief",
        "loihi2-netx",
        "loihi2-netx-sparse",
        "loihi2-shared",
        "loihi2-sim",
        "rv32imac",
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


def test_a_chip_whose_arithmetic_is_not_described_takes_no_network() -> None:
    bare = load_target("speck").model_copy(update={"formats": None})
    with pytest.raises(TargetError, match="'speck': describes cores and memory, not arithmetic"):
        _ = bare.number_formats


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
    for parent in ("a.toml", "./b.toml"):
        file.write_text(f'schema = 1\nname = "a"\ninherits = "{parent}"')
        (tmp_path / "b.toml").write_text('schema = 1\nname = "b"\ninherits = "a.toml"')
        with pytest.raises(TargetError, match="circle"):
            load_target(str(file))


def test_a_file_inherits_from_what_lies_beside_it_and_from_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    near, child = tmp_path / "sub" / "near.toml", tmp_path / "child.toml"
    near.write_text('schema = 1\nname = "near"\ninherits = "loihi2"\ntitle = "near"')
    child.write_text('schema = 1\nname = "child"\ninherits = "sub/near.toml"')
    assert load_target(str(child)).title == "near"
    for parent in (str(near), "../child.toml", "sub/../../x.toml"):
        child.write_text(f'schema = 1\nname = "child"\ninherits = "{parent}"')
        with pytest.raises(TargetError, match="lies outside the folder of its file"):
            load_target(str(child))
    for text, words in (
        ('inherits = "\\u0000.toml"', "null byte"),
        ('inherits = "sub"', "is not known"),
        ('inherits = ["loihi2"]', "which is not a name"),
        ("inherits = 1", "which is not a name"),
    ):
        child.write_text(f'schema = 1\nname = "child"\n{text}')
        with pytest.raises(TargetError, match=words):
            load_target(str(child))


def test_long_chains_of_inheritance_end(tmp_path: Path) -> None:
    for k in range(2000):
        (tmp_path / f"{k}.toml").write_text(f'schema = 1\nname = "x"\ninherits = "{k + 1}.toml"')
    with pytest.raises(TargetError, match="from more than 7 others"):
        load_target(str(tmp_path / "0.toml"))
    (tmp_path / "6.toml").write_text('schema = 1\ninherits = "loihi2"')
    assert load_target(str(tmp_path / "0.toml")).cores == 120


def own(text: str) -> str:
    return f'schema = 1\ninherits = "loihi2"\nname = "odd"\ntitle = "odd"\n{text}'


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("formats.bias_mant_bits", 1, "bias_mant_bits is 1, allowed are 2 to 31"),
        ("formats.decay_bits", 31, "decay_bits is 31, allowed are 1 to 30"),
        ("formats.decay_bits", 0, "decay_bits is 0"),
        ("formats.state_bits", 33, "state_bits is 33, allowed are 3 to 31"),
        ("formats.state_bits", 20, "no potential would reach the threshold"),
        ("formats.weight_bits", "[12]", "12 exceed weight_mantissa_bits"),
        ("formats.weight_bits", "[]", r"weight_bits is \[\]"),
        ("formats.weight_bits", "[1]", "at least 2 hold a weight that may be zero"),
        ("formats.weight_bits", "[8, true]", "weight_bits.value.1"),
        ("formats.weight_mantissa_bits", 15, "allowed are 1 to 14"),
        ("formats.weight_exp_min", 8, "weight_exp_min .8. exceeds weight_exp_max .7."),
        ("formats.weight_exp_max", 2**40, "weight_exp_max is"),
        ("formats.bias_exp_max", 25, "bias is kept in 32 bits"),
        ("formats.decay_u_offset", -1, "decay_u_offset is -1"),
        ("formats.vth_bits", 1e3, "formats.vth_bits.value: Input should be a valid integer"),
        ("formats.vth_bits", "true", "formats.vth_bits.value: Input should be a valid integer"),
        ("formats.vth_bits", "nan", "formats.vth_bits.value: Input should be a valid integer"),
        ("memory.sparse_record_bits", 99999999999999999, "less than or equal to 1024"),
        ("memory.sparse_record_bits", 10**20, "an integer of 67 bits, 64 are read"),
        ("memory.sparse_record_bits", "9" * 5000, "an integer of thousands of digits"),
        ("memory.word_bits", 0, "greater than 0"),
        ("memory.pool_words", 2**31, "less than or equal to 2147483647"),
        ("memory.neuron_words", "inf", "memory.neuron_words.value"),
        ("chip.cores", 2**20, "less than or equal to 65536"),
        ("chip.cores", -1, "greater than 0"),
        ("mesh.size", "[100000, 100000]", "less than or equal to 1024"),
        ("mesh.chip_hops", "inf", "mesh.chip_hops.value"),
        ("memory.header_bits", "1979-05-27", "memory.header_bits.value"),
    ],
)
def test_every_number_has_a_range(place: str, value: object, words: str, tmp_path: Path) -> None:
    table, _, key = place.rpartition(".")
    file = tmp_path / "odd.toml"
    fact = f'{{ value = {value}, unit = "x", grade = "assumed", source = "brief" }}'
    file.write_text(own(f"[{table}]\n{key} = {fact}"))
    with pytest.raises(TargetError, match=words):
        load_target(str(file))


def test_energy_is_a_finite_number(tmp_path: Path) -> None:
    file = tmp_path / "odd.toml"
    for value in ("inf", "nan", "0.0", "-1.0", "true"):
        fact = f'{{ value = {value}, unit = "pJ", grade = "assumed", source = "brief" }}'
        file.write_text(own(f"[energy]\nsynaptic_operation = {fact}"))
        with pytest.raises(TargetError, match=r"energy.synaptic_operation.value"):
            load_target(str(file))


def test_files_of_absurd_depth_and_size_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "odd.toml"
    for text, words in (
        ("x = " + "[" * 100_000, "nested more than 32 deep"),
        ("x = " + "[" * 40 + "]" * 40, "nested more than 32 deep"),
        ("a." * 500_000 + "b = 1", "a key of more than 32 parts"),
        ("# " + "x" * 2**20, "may have"),
    ):
        file.write_text(text)
        with pytest.raises(TargetError, match=words):
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
        ('inherits = "loihi2"\n[memory]\nmodel = "shared"', "memory.synapse_words: Field required"),
        ('inherits = "loihi2"\n[memory.caps]\nkernel = ' + fact.format(3), "kernel: Extra"),
    ):
        file.write_text(head + text)
        with pytest.raises(TargetError, match=words):
            load_target(str(file))


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(TargetError, match="loihi2-sim"):
        load_target("loihi3")
    with pytest.raises(TargetError, match=r"no such file\. Give the path .* targets list"):
        load_target("missing.toml")


def test_a_file_that_cannot_be_read_says_why_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(TargetError, match=r"\(Is a directory\)\. Name a file in it\."):
        load_target(tmp_path / "folder.toml")
    (tmp_path / "latin.toml").write_bytes("# \u00e9".encode("latin-1"))
    with pytest.raises(TargetError, match=r"is not a text in UTF-8 .* Save it as one\."):
        load_target(tmp_path / "latin.toml")
    (tmp_path / "child.toml").write_text('schema = 1\ninherits = "lost.toml"\n')
    with pytest.raises(TargetError, match=r"lost\.toml' \(inherited by .*child\.toml\): no such"):
        load_target(tmp_path / "child.toml")
