"""The two-slot store: what field practice asks of it, in Python and C, wherever the power goes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from osbc_deploy.release.journal import Reason, State
from power_cuts import (
    BAD,
    LARGE,
    SANITIZE,
    SMALL,
    InC,
    InPython,
    Model,
    Op,
    Watch,
    build,
    cut_everywhere,
    everything,
    live,
    lives,
    release,
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("c"), *SANITIZE)


@pytest.fixture
def watch(driver: Path) -> Iterator[Watch]:
    with InC(driver, SMALL) as machine:
        yield Watch((InPython(SMALL), machine))


@pytest.fixture(scope="module")
def large(driver: Path) -> Iterator[Watch]:
    with InC(driver, LARGE) as machine:
        yield Watch((InPython(LARGE), machine))


UPDATED = [Op("install", (release(1),)), Op("boot"), Op("confirm"),
           Op("install", (release(2),)), Op("boot"), Op("confirm")]  # fmt: skip


def test_the_power_goes_after_every_byte_of_a_life(watch: Watch) -> None:
    assert cut_everywhere(watch, everything(), step=29) > 900


@settings(max_examples=40, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
@given(life=lives())
def test_random_lives_on_a_large_store(large: Watch, life: list[tuple[Op, int, int]]) -> None:
    live(large, life)


def test_what_nobody_confirms_boots_three_times(watch: Watch) -> None:
    for op in UPDATED[:4]:
        watch.run(op)
    booted = [watch.run(Op("boot")) for _ in range(5)]
    assert [(b.version, b.trial) for b in booted] == [(2, True)] * 3 + [(1, False)] * 2
    assert watch.run(Op("install", (release(2),))).code == -5
    assert watch.run(Op("install", (release(3),))).code == 0


@pytest.mark.parametrize(
    ("counts", "state", "booted"),
    [
        ((99, 10, 5), State.TRIAL, 2),
        ((100, 10, 5), State.CONFIRMED, 2),
        ((3, 11, 0), State.REVERTED, 1),
        ((100, 0, 6), State.REVERTED, 1),
    ],
)
def test_a_trial_ends_by_the_limits_of_its_manifest(
    counts: tuple[int, int, int], state: State, booted: int, watch: Watch
) -> None:
    for op in UPDATED[:5]:
        watch.run(op)
    watch.run(Op("judge", counts))
    assert watch.model.state is state
    assert watch.run(Op("boot")).version == booted


def test_a_host_goes_back_once_and_only_from_the_version_it_means(watch: Watch) -> None:
    for op in UPDATED:
        watch.run(op)
    assert watch.run(Op("rollback", (Reason.HOST, 1))).code == -10
    assert watch.run(Op("rollback", (Reason.HOST, 2))).code == 0
    assert watch.run(Op("boot")).version == 1
    # Asking again does not go back two versions.
    assert watch.run(Op("rollback", (Reason.HOST, 0))).code == -9
    assert watch.run(Op("install", (release(2),))).code == -5


@pytest.mark.parametrize("kind", BAD)
def test_what_is_not_ours_is_refused_untouched(kind: str, watch: Watch) -> None:
    for op in UPDATED:
        watch.run(op)
    before = watch.content
    code, make = BAD[kind]
    watch.run(Op("install", (make(9),)), refused=code)
    assert watch.content == before


def test_pieces_that_are_not_what_was_signed_never_count(watch: Watch) -> None:
    """The device gets a file piece by piece, so it sees this last; a gateway sees it first."""
    for op in UPDATED:
        watch.run(op)
    whole = release(3)
    python, machine = watch.machines
    for damaged in (whole[:290] + b"?" + whole[291:], whole[:-32], whole + bytes(32)):
        before = python.content
        assert python.run(Op("install", (damaged,))).code == -8
        assert python.content == before
        assert machine.run(Op("install", (damaged,))).code in (-8, -9, -6)
        assert machine.run(Op("boot")).version == 2
        assert machine.run(Op("rollback", (Reason.HOST, 0))).code == -9
        assert machine.run(Op("install", (whole,))).code == 0
        machine.content = before


def flip(watch: Watch, offset: int) -> None:
    content = bytearray(watch.content)
    content[offset] ^= 1
    for machine in watch.machines:
        machine.content = bytes(content)


def test_a_good_image_that_rots_gives_way_to_the_one_before(watch: Watch) -> None:
    for op in UPDATED:
        watch.run(op)
    flip(watch, SMALL.slot_at(1) + 270)
    python, machine = watch.machines
    assert python.run(Op("boot")) == machine.run(Op("boot"))
    assert python.content == machine.content
    watch.model = Model(State.REVERTED, 1, floor=2)
    assert watch.run(Op("boot")).version == 1
    # And when that rots too, nothing runs rather than something unchecked.
    flip(watch, SMALL.slot_at(0) + 100)
    assert python.run(Op("boot")) == machine.run(Op("boot"))
    assert python.run(Op("boot")).version == 0


@pytest.mark.parametrize("at", [12, 40, 170, 270, 330])
def test_a_candidate_that_rots_never_boots_and_is_not_barred(at: int, watch: Watch) -> None:
    for op in UPDATED[:4]:
        watch.run(op)
    flip(watch, SMALL.slot_at(1) + at)
    python, machine = watch.machines
    assert python.run(Op("boot")) == machine.run(Op("boot"))
    assert python.content == machine.content
    watch.model = Model(State.REVERTED, 1, floor=1)
    assert watch.run(Op("boot")).version == 1
    assert watch.run(Op("install", (release(2),))).code == 0


def test_what_was_staged_and_rots_is_written_again(watch: Watch) -> None:
    for op in UPDATED:
        watch.run(op)
    before = watch.content
    assert watch.run(Op("install", (release(3),))).code == 0
    staged = watch.content
    flip(watch, SMALL.slot_at(0) + 330)
    python, machine = watch.machines
    for one in (python, machine):
        assert one.run(Op("install", (release(3),))).code == 0
    assert python.content[128:] == machine.content[128:] == staged[128:]
    assert watch.run(Op("boot")).version == 3
    # Another image than was staged, as whole as that was, is not taken for it.
    swapped = staged[:128] + before[128:]
    for one in (python, machine):
        one.content = swapped
        booted = one.run(Op("boot"))
        assert (booted.version, booted.trial) == (2, False)


def test_a_journal_of_two_broken_records_is_no_empty_one(watch: Watch) -> None:
    for op in UPDATED:
        watch.run(op)
    flip(watch, 5)
    # The newer or the older one is left.
    assert watch.machines[0].run(Op("boot")).version in (1, 2)
    flip(watch, SMALL.sector + 5)
    for machine in watch.machines:
        for op in (Op("boot"), UPDATED[0], Op("confirm"), Op("rollback", (Reason.HOST, 0))):
            assert machine.run(op).code == -11


def test_records_are_laid_out_as_written_down_and_their_numbers_go_round(watch: Watch) -> None:
    # docs/releases.md, by hand: confirmed, slot 1 good, the other a fallback, floor 7.
    def record(sequence: int, floor: int) -> bytes:
        head = b"OSBJ" + struct.pack("<I4B2BHIII", sequence, 1, 3, 1, 1, 0, 0, 0, floor, 0, 0)
        return head + struct.pack("<I", zlib.crc32(head))

    content = (record(2**32 - 1, 6).ljust(64, b"\xff") + record(0, 7).ljust(64, b"\xff")
               + release(1).ljust(448, b"\xff") + release(7).ljust(448, b"\xff"))  # fmt: skip
    for machine in watch.machines:
        machine.content = content
    watch.model = Model(State.CONFIRMED, 7, 1, floor=7)
    assert watch.run(Op("boot")).version == 7
    assert watch.run(Op("install", (release(8),))).code == 0
    assert watch.content[4:8] == struct.pack("<I", 1) or watch.content[4:8] == struct.pack("<I", 2)
