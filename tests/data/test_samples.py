"""Samples are validated on input, whatever form they come in."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from osbc_deploy.data.samples import Samples, check_samples, load_npz, samples_from_dataset
from osbc_deploy.errors import ArtefactError, OsbcError, UsageError
from osbc_deploy.references import as_samples

GOOD = np.zeros((4, 5, 2, 3), np.uint8)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_numbers_of_any_kind_are_taken(dtype: Any) -> None:
    samples = check_samples("x", np.ones((4, 5, 2), dtype), [0, 1, 2, 3])
    assert samples.spikes.dtype == np.uint8
    assert samples.spikes.all()
    assert samples.labels is not None
    assert samples.labels.dtype == np.int64
    assert (samples.steps, samples.input_shape, len(samples)) == (5, (2,), 4)


@pytest.mark.parametrize(
    ("spikes", "labels", "words"),
    [
        (np.array([["a"]]), None, "not numbers"),
        (np.zeros((3, 4)), None, r"shape \(3, 4\)"),
        (np.zeros((3, 0, 2)), None, "T is 0"),
        (np.zeros((0, 3, 2)), None, "n is 0"),
        (np.full((1, 2, 3), np.nan), None, "NaN"),
        (np.zeros((3, 4)), None, r"for images and the like without time, --repeat T"),
        (
            np.full((1, 2, 3), 2**24 + 1),
            None,
            r"from 1.67772e\+07 to 1.67.*, whole",
        ),
        (np.full((1, 2, 3), -(2**24) - 1), None, "whole numbers to 1.67772e"),
        (np.full((1, 2, 3), 1e39 + 0.5), None, r"whole numbers to 1.67772e\+07 are taken"),
        (np.array([[[0.5, 1e39]]]), None, r"values to 3.40282e\+38 are taken. Scale them"),
        (GOOD, [1, 2], r"labels have shape \(2,\)"),
        (GOOD, [0, 1, 0.5, 3], r"1 of 4 labels are not classes, such as 0.5 of sample 2; a class"),
        (GOOD, [0, 1, 2, np.nan], "such as nan of sample 3"),
        (GOOD, [-1, 1, 2, 3], "such as -1 of sample 0.*leave samples without a class out"),
        (GOOD, np.array([0, 1, 2, 2**63], np.uint64), "such as 9223372036854775808 of sample 3"),
        (GOOD, [0, 1, 2, 2**64], r"labels are not numbers \(dtype object\)"),
        (GOOD, [0, 1, 2, 1e300], "such as 1e[+]300 of sample 3"),
        (GOOD, ["a", "b", "c", "d"], "labels are not numbers.*Number the classes from 0"),
        (GOOD, np.eye(4), r"shape \(4, 4\).*They are one-hot: give labels.argmax\(axis=1\)"),
        (GOOD, np.full((4, 3), 0.3), r"If they are scores of the classes: give labels.argmax"),
        (GOOD, np.zeros((4, 1)), r"labels\[:, 0\]"),
        (GOOD, [[1], [1, 2], [3], [4]], "labels: cannot be converted to an array"),
        ([[[1, 0]], [[1]]], None, "spikes: cannot be converted to an array"),
        (torch.zeros(2, 3, 4, dtype=torch.complex64), None, "not numbers"),
        (torch.zeros(2, 3, 4, device="meta"), None, "spikes: cannot be converted to an array"),
    ],
)
def test_what_is_wrong_is_named(spikes: Any, labels: Any, words: str) -> None:
    with pytest.raises(ArtefactError, match=words) as caught:
        check_samples("mine", spikes, labels)
    assert str(caught.value).startswith("mine: ")


def test_npz_files(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, spikes=GOOD, labels=np.arange(4))
    assert load_npz(path).labels is not None
    np.savez(path, other=GOOD)
    with pytest.raises(ArtefactError, match="found: other"):
        load_npz(path)
    np.savez(path, spikes=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ArtefactError, match="without pickle"):
        load_npz(path)
    for content in (b"", b"PK\x03\x04 broken", b"\x80\x04K\x01."):
        path.write_bytes(content)
        with pytest.raises(ArtefactError, match=r"x\.npz"):
            load_npz(path)
    np.savez(path, spikes=GOOD)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ArtefactError, match=r"x\.npz"):
        load_npz(path)
    np.save(tmp_path / "y.npy", GOOD)
    with pytest.raises(ArtefactError, match="not an .npz"):
        load_npz(tmp_path / "y.npy")
    with pytest.raises(UsageError, match="no such file"):
        load_npz(tmp_path / "z.npz")


@pytest.mark.parametrize("key", ["y", "Y", "targets", "label", "y_test", "digit", "class_ids"])
def test_labels_under_another_name_are_not_passed_over(key: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, spikes=GOOD, **{key: np.arange(4)})
    with pytest.raises(ArtefactError, match=f"holds no array 'labels', but {key}. Save the clas"):
        load_npz(path)
    np.savez(path, spikes=GOOD, labels=np.arange(4), **{key: np.arange(4)})
    assert load_npz(path).labels is not None
    np.savez(path, spikes=GOOD, dt=1e-3, days=np.arange(4))
    assert load_npz(path).labels is None


RASTER = np.random.default_rng(0).random((4, 5, 2, 3)) < 0.4


def kinds() -> dict[str, Any]:
    tensor = torch.tensor(RASTER)
    return {
        "sparse": tensor.float().to_sparse(),
        "csr": [frame.reshape(5, 6).float().to_sparse_csr() for frame in tensor],
        "gradient": tensor.double().requires_grad_(),
        "bfloat16": tensor.bfloat16(),
        "float8": tensor.float().to(torch.float8_e4m3fn),
        "half": tensor.half(),
        "negated": (-tensor.cfloat()).conj().imag.neg() + tensor,
        "quantized": torch.quantize_per_tensor(tensor.float(), 0.5, 0, torch.quint8),
        "strided": tensor.permute(3, 2, 1, 0).permute(3, 2, 1, 0),
    }


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning", "ignore:torch.quantize:UserWarning")
@pytest.mark.parametrize("kind", ["sparse", "csr", "gradient", "bfloat16", "float8", "half",
                                  "negated", "quantized", "strided"])  # fmt: skip
def test_tensors_of_every_kind_hold_what_they_hold(kind: str) -> None:
    given = kinds()[kind]
    # Items of a data set, where one tensor for all is not already it.
    found = as_samples(given, "x").spikes
    assert np.array_equal(found.reshape(RASTER.shape), RASTER)
    items = (
        [(frame, torch.tensor(k)) for k, frame in enumerate(given)]
        if kind != "sparse"
        else [(given[k], torch.tensor(k)) for k in range(4)]
    )
    done = samples_from_dataset("d", Items(items))
    assert np.array_equal(done.spikes.reshape(RASTER.shape), RASTER)
    assert done.labels is not None
    assert done.labels.tolist() == [0, 1, 2, 3]


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_sparse_tensors_are_not_expanded_beyond_the_limit() -> None:
    huge = torch.sparse_coo_tensor(
        torch.zeros(3, 1, dtype=torch.int64), torch.ones(1), (10**4, 10**4, 10**4)
    )
    with pytest.raises(ArtefactError, match="x: spikes: needs 3,725.30 GiB of memory, the limit"):
        as_samples(huge, "x")


class Items(torch.utils.data.Dataset):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def test_datasets() -> None:
    raster = torch.ones(5, 2)
    labelled = samples_from_dataset("d", Items([(raster, 1), (raster, torch.tensor(2))]))
    assert labelled.labels is not None
    assert labelled.labels.tolist() == [1, 2]
    assert samples_from_dataset("d", Items([raster, raster])).labels is None
    # What loaders give behind the label is not looked at.
    more = samples_from_dataset("d", Items([(raster, 3, 0), (raster, np.int8(4), 1, "path")]))
    assert more.labels is not None
    assert more.labels.tolist() == [3, 4]
    assert samples_from_dataset("d", Items([(raster,), (raster, None)])).labels is None
    nested = samples_from_dataset("d", Items([[[1, 0], [0, 1], [1, 1]]]))
    assert nested.spikes.tolist() == [[[1, 0], [0, 1], [1, 1]]]
    assert samples_from_dataset("d", Items([[[1, 0], [0, 1]]])).spikes.shape == (1, 2, 2)
    for items, words in (
        ([], "empty"),
        ([(raster, 1), (raster[:3], 1)], r"sample 1 has shape \(3, 2\)"),
        ([(raster, 1), raster], "no label"),
        ([(raster, torch.tensor([0, 1]))], "They are one-hot: give labels.argmax"),
        ([(raster, 1), (raster, [1, 0])], "labels have shapes that differ"),
        ([(raster, "cat")], "labels are not numbers"),
        ([{"spikes": raster, "label": 1}], "sample 0: spikes are not numbers"),
        ([()], "sample 0: is an empty tuple"),
        ([None], "sample 0: spikes are not numbers"),
    ):
        with pytest.raises(ArtefactError, match=words):
            samples_from_dataset("d", Items(items))
    with pytest.raises(ArtefactError, match=r"sample 0 failed \(KeyError: 0\)"):
        samples_from_dataset("d", {"a": 1})
    with pytest.raises(ArtefactError, match="int is not a dataset"):
        samples_from_dataset("d", 3)

    class Endless(Items):
        def __len__(self) -> int:
            raise TypeError("no length")

    with pytest.raises(ArtefactError, match="its length cannot be told .TypeError: no length"):
        samples_from_dataset("d", Endless([]))


@pytest.mark.parametrize("given", [GOOD, (GOOD, np.arange(4)), check_samples("x", GOOD)])
def test_any_holder_of_samples_will_do(given: Any) -> None:
    assert len(as_samples(given, "x")) == 4


@pytest.mark.parametrize(
    "reference", ["nope.module:f", "osbc_deploy.bundled.digits:nope", "a b:c d", "missing.py:f"]
)
def test_references_that_lead_nowhere_are_named(reference: str) -> None:
    with pytest.raises(OsbcError) as caught:
        as_samples(reference, "x")
    assert caught.value.exit_code == 2
    assert reference.split(":", maxsplit=1)[0] in str(caught.value)


class Claims(torch.utils.data.Dataset):
    """A data set of very many samples, of which nobody may ask for more than one."""

    def __init__(self, count: int) -> None:
        self.count, self.asked = count, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        self.asked += 1
        return torch.zeros(5, 2, 8)


def test_a_data_set_of_too_many_samples_is_refused_at_the_first() -> None:
    claims = Claims(10**9)
    with pytest.raises(ArtefactError, match=r"^d: needs 149\.\d\d GiB of memory, the limit is"):
        samples_from_dataset("d", claims)
    assert claims.asked == 1


def test_checking_takes_little_beside_the_samples() -> None:
    spikes = np.zeros((4, 10, 1000, 1000), np.uint8)
    spikes.flags.writeable = False
    tracemalloc.start()
    try:
        assert check_samples("x", spikes).spikes is spikes
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_a_sample_that_is_wrong_is_named() -> None:
    with pytest.raises(ArtefactError, match=r"^d, sample 1: spikes hold NaN"):
        samples_from_dataset("d", Items([torch.ones(5, 2), torch.nan * torch.eye(5)[:, :2]]))


def test_a_fingerprint_tells_counts_from_spikes() -> None:
    counts = np.array([[[0, 2, 1], [3, 0, 0]]], np.int64)
    raster = (counts > 0).astype(np.uint8)
    prints = {Samples("x", values).fingerprint() for values in (counts, raster, counts[..., ::-1])}
    assert len(prints) == 3
    # Values count, not the type that holds them.
    assert Samples("x", counts.astype(np.uint8)).fingerprint() in prints
    values = [check_samples("x", counts * scale).fingerprint() for scale in (0.5, 0.25, -1)]
    assert len({*prints, *values}) == 6
    # SHA-256 of the shape's text and of the packed bits 011100 + 00: what reports hold already.
    expected = hashlib.sha256(b"(1, 2, 3)" + bytes([0b01110000])).hexdigest()
    assert Samples("x", raster).fingerprint() == expected
