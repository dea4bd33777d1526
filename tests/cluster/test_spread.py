"""Compression spread over workers, and on a device of torch: the same bytes as in this process."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from distributed import LocalCluster

import small_models
from osbc_deploy import Deployment, compress_model, deploy
from osbc_deploy.cluster import Part
from osbc_deploy.compress import rows, thinning
from osbc_deploy.compress.activity import active
from osbc_deploy.compress.hessian import membrane_moments
from osbc_deploy.compress.moments import Moments
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.errors import ClusterError, UsageError
from osbc_deploy.model.graph import Conv, Dense, Projection
from osbc_deploy.model.neurons import LinearDynamics
from osbc_deploy.model.windows import AvgPool
from osbc_deploy.progress import Silent

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
ASKED: dict[str, Any] = {"backend": "engine", "backend_samples": 1, "sparsity": 0.6}


@pytest.fixture(autouse=True)
def everything_is_worth_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "WORTH", 0.0)


def deployed(**asked: Any) -> Deployment:
    np.random.seed(3)
    spikes, labels = small_models.data()
    return deploy(small_models.model(), (spikes, labels), **{**ASKED, **asked})


def bytes_of(done: Deployment) -> tuple[str, str]:
    return done.provenance["network_sha256"], done.provenance["output_sha256"]


class Leaver(Silent):
    """Takes a worker away as soon as there is anything to tell of."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self.left = ""

    def advance(self, steps: int = 1) -> None:
        if steps and not self.left:
            worker = next(iter(self._cluster.workers.values()))
            self.left = worker.address
            self._cluster.sync(worker.close, executor_wait=False)


@pytest.fixture(scope="module")
def alone() -> Deployment:
    return deployed()


@pytest.fixture(scope="module")
def four() -> Iterator[LocalCluster]:
    """Return a cluster of four workers, which are threads to be cheap."""
    with LocalCluster(
        n_workers=4, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=":0"
    ) as cluster:
        yield cluster


def test_a_deployment_is_the_same_on_four_workers_one_of_which_goes_away(
    alone: Deployment, four: LocalCluster
) -> None:
    leaver = Leaver(four)
    spread = deployed(scheduler=four.scheduler_address, progress=leaver)
    assert leaver.left
    assert bytes_of(spread) == bytes_of(alone)
    messages = [d.message for d in spread.deviations if d.subject == "workers"]
    # As many as there were when it was asked: the fourth may be gone by then.
    assert messages in [[f"worked on by {n} workers"] for n in (3, 4)]


def test_neurons_are_removed_by_all_workers(
    four: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"remove_neurons": 0.3, "tune": False, "backend_samples": 0}
    wanted, helped = bytes_of(deployed(**asked)), []

    def watched(network: Any, spikes: Any, space: Workspace, **more: Any) -> Any:
        helped.append(space.crew is not None)
        return active(network, spikes, space, **more)

    monkeypatch.setattr(thinning, "active", watched)
    assert bytes_of(deployed(scheduler=four.scheduler_address, **asked)) == wanted
    assert helped
    assert all(helped)


def test_a_state_dict_is_the_same_with_workers_and_on_a_device(four: LocalCluster) -> None:
    def digest(**asked: Any) -> str:
        np.random.seed(3)
        samples = small_models.data()
        # Two batches; the parts of which variants are made have one each.
        done = compress_model(small_models.model(), samples, sparsity=0.6, tune=False, **asked)
        values = (value.numpy().tobytes() for _, value in sorted(done.state.items()))
        return hashlib.sha256(b"".join(values)).hexdigest()

    wanted = digest()
    assert digest(scheduler=four.scheduler_address) == wanted
    assert digest(device="cpu") == wanted


def test_a_model_that_cannot_be_sent(four: LocalCluster) -> None:
    model = small_models.model()
    model.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(ClusterError, match="workers: what they need cannot be sent to them") as it:
        compress_model(model, small_models.data(), tune=False, scheduler=four.scheduler_address)
    assert it.value.exit_code == 2


@pytest.mark.parametrize("device", DEVICES)
def test_a_deployment_is_the_same_on_a_device(alone: Deployment, device: str) -> None:
    assert bytes_of(deployed(device=device)) == bytes_of(alone)


@pytest.mark.parametrize("device", DEVICES)
def test_a_model_is_compressed_the_same_on_a_device(device: str) -> None:
    model = small_models.model()
    with torch.no_grad():
        for parameter in model.parameters():
            # Sums of such weights have no rounding, in whatever order the framework adds.
            parameter.copy_((parameter * 64).round() / 64)
    samples = small_models.data()
    here, there = (
        compress_model(model, samples, sparsity=0.6, device=place) for place in (None, device)
    )
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())
    for name, value in here.state.items():
        assert torch.equal(value, there.state[name])


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("wanted", [None, 60])
@pytest.mark.parametrize("pool", [None, AvgPool((2, 2), (2, 2))])
@pytest.mark.parametrize("place", DEVICES)
def test_torch_sums_the_same_moments(
    groups: int, wanted: int | None, pool: AvgPool | None, place: str
) -> None:
    rng = np.random.default_rng(0)
    spikes, others = (rng.random((2, 6, 5, 4, 9, 9)) < 0.3).astype(np.uint8)
    conv = Conv(
        rng.normal(size=(6, 4 // groups, 3, 3)).astype(np.float32),
        stride=(1, 1),
        padding=(1, 1),
        groups=groups,
    )
    dense = Dense(rng.normal(size=(6, 324)).astype(np.float32))
    decays = (np.float64(value) for value in (0.8, 0.9, 0.3, 1.0))
    dynamics = LinearDynamics(*decays)  # type: ignore[arg-type]
    for projection in (
        Projection("a", "input", "b", conv, pool=pool),
        Projection("a", "input", "b", dense),
    ):
        one, other = (
            membrane_moments(
                [projection], dynamics, [spikes], [others], wanted=wanted,
                space=Workspace(device=device),
            )
            for device in (None, place)
        )  # fmt: skip
        same(one, other)
        if one.held is not None and other.held is not None:
            same(one.held, other.held)


def same(one: Moments, other: Moments) -> None:
    for name in ("hessian", "cross", "drift", "float_drift", "constant", "rows", "of"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (
            "cuda:999",
            "--device: 'cuda:999' cannot be used here (.*). Leave --device out, or install a",
        ),
        ("gpu", "--device: 'gpu' is not one of cpu, cuda and cuda:N. Give one of these."),
    ],
)
@pytest.mark.parametrize("verb", [deploy, compress_model])
def test_a_device_that_is_not_there(verb: Callable[..., Any], device: str, words: str) -> None:
    # Neither model nor data is looked for before.
    with pytest.raises(UsageError, match=words) as error:
        verb("nowhere:model", "nowhere:data", device=device)
    assert error.value.exit_code == 2


def test_parts_are_of_nearly_equal_size() -> None:
    listed = [str(part) for part in Part.cut(7, 3, "rows")]
    assert listed == ["rows 0 to 1", "rows 2 to 3", "rows 4 to 6"]
    assert [part.slice for part in Part.cut(2, 9, "samples")] == [slice(0, 1), slice(1, 2)]
