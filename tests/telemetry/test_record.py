"""Records: by hand, torn, changed, and of counters that have stopped."""

from __future__ import annotations

import zlib

import pytest

from osbc_deploy.errors import ArtefactError
from osbc_deploy.telemetry.record import LayerCounts, Window, place_of, read_windows

WINDOW = Window(
    identity=bytes(range(8)), sequence=5, samples=70_000, boots=2, silent=1, faults=3,
    margins=(1, 0, 0, 0, 0, 0, 0, 9),
    layers=(LayerCounts(2**32 - 1, 4, 5, 6, (7, 0, 0, 0, 0, 0, 0, 8)),), answers=(10, 65535),
)  # fmt: skip
BY_HAND = bytes.fromhex(
    "4f534254 0100 0100 0200 0001020304050607 05000000 70110100 0200 0100 0300"
    "0100 0000 0000 0000 0000 0000 0000 0900"
    "ffffffff 0400 0500 0600 0700 0000 0000 0000 0000 0000 0000 0800"
    "0a00 ffff".replace(" ", "")
)


def test_a_record_by_hand() -> None:
    data = BY_HAND + zlib.crc32(BY_HAND).to_bytes(4, "little")
    assert WINDOW.to_bytes() == data
    assert read_windows(data) == [WINDOW]
    assert read_windows(data * 3) == [WINDOW] * 3


def test_counters_stop_at_their_largest_value() -> None:
    more = Window(
        WINDOW.identity, 5, 2**40, 2**20, 2**17, 3, (2**16,) * 8,
        (LayerCounts(2**33, 2**16, 0, 0, (0,) * 8),), (2**16, 1),
    )  # fmt: skip
    [found] = read_windows(more.to_bytes())
    assert (found.samples, found.boots, found.silent) == (2**32 - 1, 2**16 - 1, 2**16 - 1)
    assert (found.margins, found.answers) == ((2**16 - 1,) * 8, (2**16 - 1, 1))
    assert (found.layers[0].spikes, found.layers[0].fired) == (2**32 - 1, 2**16 - 1)


def test_every_changed_byte_and_every_torn_record_is_refused() -> None:
    data = WINDOW.to_bytes()
    for i in range(len(data)):
        for change in (1 << i % 8, 0xFF):
            with pytest.raises(ArtefactError, match="records are broken"):
                read_windows(data[:i] + bytes([data[i] ^ change]) + data[i + 1 :])
        with pytest.raises(ArtefactError, match=r"cut short|no record starts here|there is none"):
            read_windows(data[:i])


def test_all_broken_records_are_listed() -> None:
    data = WINDOW.to_bytes()
    torn = data[:60] + bytes([data[60] ^ 1]) + data[61:]
    size = len(data)
    with pytest.raises(ArtefactError) as caught:
        read_windows(data + torn + data + torn + data[:9], "day.bin")
    said = str(caught.value)
    assert said.startswith(f"day.bin: records are broken (byte {size}: is changed")
    assert f"byte {3 * size}: is changed" in said
    assert f"byte {4 * size}: is cut short" in said


@pytest.mark.parametrize(
    ("value", "unit", "place"),
    [(0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 0, 2), (4, 0, 3), (63, 0, 6), (64, 0, 7), (10**9, 0, 7),
     (7, 3, 0), (8, 3, 1), (15, 3, 1), (16, 3, 2)],
)  # fmt: skip
def test_places_are_powers_of_two_of_a_unit(value: int, unit: int, place: int) -> None:
    assert place_of(value, unit) == place
