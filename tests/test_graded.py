"""Counts, real values and static images from the door to the last report."""

from __future__ import annotations

import copy
import json
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import norse.torch as norse
import numpy as np
import pytest
import snntorch
import torch
from sklearn.datasets import load_digits
from spikingjelly.activation_based import layer, neuron
from torch import nn

import osbc_deploy
from osbc_deploy.chip.mapping import map_network
from osbc_deploy.chip.target import load_target
from osbc_deploy.data.samples import check_samples
from osbc_deploy.deployment import Deployment
from osbc_deploy.errors import ArtefactError, UnsupportedModelError, UsageError
from osbc_deploy.firmware.library import export_c
from osbc_deploy.fixedpoint.coding import InputFormat
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.formats.folder import MANIFEST, read_network, write_network
from osbc_deploy.formats.image.read import read_image
from osbc_deploy.formats.image.write import write_image
from osbc_deploy.importing import import_network
from osbc_deploy.model.graph import INPUT
from osbc_deploy.model.simulate import simulate
from osbc_deploy.report.check.consistency import contradictions
from osbc_deploy.report.check.recount import read_recounted
from osbc_deploy.report.deployment.build import json_schema
from osbc_deploy.report.deployment.page import report_page
from osbc_deploy.report.summary import lines_of
from osbc_deploy.report.verification.build import verify_json_schema
from osbc_deploy.report.verification.page import verify_page

RNG = np.random.default_rng(5)
IMAGES = RNG.random((24, 1, 8, 8)).astype(np.float32)
LABELS = np.arange(24) % 4


def images_net() -> nn.Module:
    """A convolutional network in front of a readout, both lively."""
    torch.manual_seed(2)
    net = norse.SequentialState(
        nn.Conv2d(1, 4, 3, padding=1), norse.LIFBoxCell(), nn.Flatten(), nn.Linear(256, 4),
        norse.LICell(),
    )  # fmt: skip
    net[0].weight.data *= 12
    net[3].weight.data *= 8
    return net


@pytest.fixture(scope="module")
def deployed() -> Deployment:
    return osbc_deploy.deploy(
        images_net(), (IMAGES[:12], LABELS[:12]), test=(IMAGES[12:] * 1.5, LABELS[12:]), repeat=10,
        sparsity=0.0, bits=8, tune=False, target="loihi2-sim", backend_samples=2,
    )  # fmt: skip


def test_static_images_are_shown_in_every_step_and_lava_gives_the_same_bits(
    deployed: Deployment,
) -> None:
    given = deployed.lowered.network.input
    assert (given.kind, given.signed) == ("values", False)
    assert deployed.fidelity.backend == "lava"
    assert deployed.fidelity.compared_spikes == 2 * 10 * 256
    assert deployed.fidelity.exact
    assert deployed.provenance["steps"] == 10
    assert deployed.provenance["options"]["repeat"] == 10


def test_reports_say_what_the_input_is(deployed: Deployment) -> None:
    report = deployed.report()
    jsonschema.validate(report, json_schema())
    given, said = deployed.lowered.network.input, report["input"]
    # By hand: what lies above the largest payload by more than half a step is cut off.
    top = 2**given.bits - 1
    above = IMAGES[12:] * np.float32(1.5) / given.scale > top + 0.5
    assert said["clipped"] == pytest.approx(above.mean())
    assert (said["kind"], said["bits"], said["low"], said["high"]) == ("values", given.bits, 0, top)
    largest = min(top, round(float(IMAGES[12:].max()) * 1.5 / given.scale))
    assert (said["scale"], said["largest"]) == (given.scale, largest)
    line = f"input: real values in multiples of {given.scale:.6g}, payloads 0 to {top} "
    assert any(text.startswith(line) for text in lines_of(deployed))
    page = report_page(report)
    assert f"real values in multiples of {given.scale:.6g}; {said['clipped']:.2%} cut off" in page
    assert any(d.subject == INPUT and "8 bits of" in d.message for d in deployed.deviations)
    assert any("in finer ones" in d.message for d in deployed.deviations)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bits": 10}, ", 10 bits hold others"),
        ({"largest": 256}, "input.largest: is 256, "),
        ({"kind": "integers", "scale": 1.0, "clipped": 0.1}, "input.clipped: whole numbers are no"),
        ({"kind": "integers"}, "input: integers with a scale of"),
    ],
)
def test_reports_that_contradict_themselves(
    change: dict[str, Any], words: str, deployed: Deployment
) -> None:
    report = copy.deepcopy(deployed.report())
    report["input"].update(change)
    assert any(words in line for line in contradictions(report))


def test_folders_keep_the_input_and_are_counted_again(deployed: Deployment, tmp_path: Path) -> None:
    folder = tmp_path / "image"
    deployed.save(folder)
    again = read_network(folder)
    assert again.input == deployed.lowered.network.input
    np.savez(tmp_path / "test.npz", spikes=IMAGES[12:] * 1.5, labels=LABELS[12:])
    # The test data have no time axis either: the report says for how long they were shown.
    read_recounted(folder, test=str(tmp_path / "test.npz"))
    manifest = json.loads((folder / MANIFEST).read_text())
    for change in ({"scale": 0.0}, {"scale": "1"}, {"bits": 8.0}, {"kind": "spikes"}, {"more": 1}):
        (folder / MANIFEST).write_text(
            json.dumps({**manifest, "input": manifest["input"] | change})
        )
        with pytest.raises(ArtefactError, match="inconsistent network"):
            read_network(folder)


def test_folders_from_before_there_was_a_format_hold_any_payload(
    deployed: Deployment, tmp_path: Path
) -> None:
    write_network(deployed.lowered.network, tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    del manifest["input"]
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    old = read_network(tmp_path)
    assert old.input == InputFormat("integers", 16, signed=True)
    write_network(old, tmp_path)
    assert "input" not in json.loads((tmp_path / MANIFEST).read_text())


def test_verify_measures_the_rounding_of_the_input_alone() -> None:
    found = osbc_deploy.verify(
        images_net(), (IMAGES, LABELS), repeat=10, sparsity=0.0, bits=8, tune=False, input_bits=2,
        target="loihi2", backend_samples=0,
    )  # fmt: skip
    names = [(step.name, step.before, step.after) for step in found.steps]
    assert ("input", "compressed", "rounded input") in names
    assert ("lower", "rounded input", "fixed point") in names
    # By hand: the compressed network on values rounded to the four that two bits hold.
    network, given = found.deployment.compressed.network, found.deployment.lowered.network.input
    x = np.repeat(IMAGES[:, None], 10, axis=1)
    rounded = (np.clip(np.rint(x / given.scale), 0, 3) * given.scale).astype(np.float32)
    first = network.populations[0].name
    sides = [simulate(network, x_, record=[first]).spikes[first] for x_ in (x, rounded)]
    (step,) = [s for s in found.steps if s.name == "input"]
    assert step.propagated[first].mismatches == np.count_nonzero(sides[0] != sides[1]) > 0
    assert step.isolated[first].mismatches == step.propagated[first].mismatches
    report = found.report()
    jsonschema.validate(report, verify_json_schema())
    assert [s["name"] for s in report["steps"]].count("input") == 1
    assert "rounding of the input" in verify_page(report)


def test_whole_numbers_are_not_rounded() -> None:
    x = RNG.integers(0, 5, (16, 8, 1, 8, 8))
    found = osbc_deploy.verify(
        images_net(), x, sparsity=0.0, bits=8, tune=False, target="loihi2", backend_samples=0
    )
    assert "input" not in [step.name for step in found.steps]
    given = found.deployment.lowered.network.input
    # Three bits hold what is there, and one is to spare.
    assert given == InputFormat("integers", 4)
    assert found.deployment.report()["input"]["largest"] == 4


class Jelly(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            layer.Flatten(), layer.Linear(16, 12), neuron.LIFNode(2.0), layer.Linear(12, 5),
            neuron.IFNode(),
        )  # fmt: skip


def torch_net() -> nn.Module:
    leaky = [snntorch.Leaky(beta=0.8, init_hidden=True, output=last) for last in (False, True)]
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), leaky[0], nn.Linear(12, 5), leaky[1])


def norse_net() -> nn.Module:
    return norse.SequentialState(
        nn.Flatten(), nn.Linear(16, 12), norse.LIFBoxCell(), nn.Linear(12, 5), norse.LICell()
    )


@pytest.mark.parametrize("make", [Jelly, torch_net, norse_net])
def test_every_framework_is_proven_on_the_values_themselves(make: Any) -> None:
    torch.manual_seed(0)
    model = make()
    first = next(m for m in model.modules() if isinstance(m, nn.Linear))
    first.weight.data *= 6
    x = RNG.normal(size=(6, 7, 1, 4, 4)).astype(np.float32)
    heard: list[np.ndarray[Any, Any]] = []
    hook = first.register_forward_hook(
        lambda _, given, __: heard.append(given[0].detach().reshape(-1, 16).double().numpy())
    )
    try:
        network = import_network(model, None, check_samples("x", x))
    finally:
        hook.remove()
    rows = {tuple(row) for part in heard for row in part}
    assert {tuple(row) for row in x.reshape(-1, 16).astype(np.float64)} <= rows
    # The random samples hold such values, too, and not only 0 and 1.
    held = set(x.ravel().astype(np.float64)) | {0.0}
    assert all(set(row) <= held for row in rows)
    exact = simulate(network, x, exact=True).output
    np.testing.assert_allclose(exact, simulate(network, x).output, atol=1e-4)
    assert any("own forward" in note and "32 random ones" in note for note in network.notes)


def refused() -> Iterator[tuple[str, Any, str]]:
    counts, signed = np.array([[[0, 5]]]), np.array([[[-0.5, 1.0]]])
    yield "loihi1", counts, r"input: holds whole numbers, the target 'loihi1' takes 0 or 1 "
    yield "loihi1", signed, r"input: holds real values, the target 'loihi1' takes 0 or 1 "
    yield "unsigned", signed, "holds real values below 0, the payloads of target 'mine' have no si"
    yield (
        "unsigned",
        np.array([[[0, 5]]]),
        "need payloads of 3 bits, the target 'mine' has 2 .* Clip th",
    )
    yield "unsigned", counts * 0.1, r"real values need payloads of 8 bits, .* fewer --input-bits"
    yield "bare", counts, "the target 'mine' is not known to take more than 0 or 1"


@pytest.mark.parametrize(("target", "x", "words"), list(refused()))
def test_targets_say_what_they_take(target: str, x: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = 'schema = 1\nname = "mine"\ntitle = "mine"\ninherits = "loihi2"\n[input]\n'
    text += 'payload_bits = { value = 2, unit = "bits", grade = "assumed", source = "brief" }\n'
    text += 'signed = { value = false, unit = "", grade = "assumed", source = "brief" }\n'
    path.write_text(text)
    chip = load_target("loihi1" if target == "loihi1" else path)
    if target == "bare":
        chip = chip.model_copy(update={"input": None})
    kind = "integers" if x.dtype.kind == "i" else "values"
    bits = 3 if kind == "integers" else 8
    with pytest.raises(UnsupportedModelError, match=words):
        chip.check_input(InputFormat(kind, bits, bool((x < 0).any())))
    chip.check_input(InputFormat())
    if target == "loihi1":
        with pytest.raises(UnsupportedModelError, match=words):
            osbc_deploy.deploy(norse_net(), np.repeat(x, 8, axis=2)[..., None], target="loihi1")


def test_a_chip_of_spikes_does_not_price_a_graded_network(deployed: Deployment) -> None:
    # Xylo counts spikes, up to 15 of an input in a step.
    counts = "input: real values need payloads of|input: holds real values"
    (fault, *_) = map_network(deployed.lowered.network, load_target("speck")).faults
    assert "its integers are those of 'loihi'" in fault
    for name in ("loihi1", "xylo-audio2"):
        with pytest.raises(UnsupportedModelError, match=counts):
            map_network(deployed.lowered.network, load_target(name))


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ((0, 1), (0, 3), "test: samples hold whole numbers, the calibration samples 0 and 1"),
        ((0, 3), (0, 0.5), "test: samples hold real values, the calibration samples whole numbers"),
        ((0, 300), (0, 1), r"--input-bits: whole numbers from 0 to 300 need 9, 8 were asked for"),
        ((0, 3), (0, 300), r"test: .*0 to 300, the input takes 0 to 255.* --input-bits 9\.$"),
        ((0, 3), (0, 2**24), r"test: .*the input takes 0 to 255.*Calibrate on samples with such v"),
        ((-3, 3), (-129, 3), r"test: .*-129 to 3, the input takes -128 to 127.* --input-bits 9\.$"),
        (
            (0, 3),
            (-1, 3),
            "test: samples go down to -1, the calibration samples to 0, so the input",
        ),
        ((0, 0.5), (-0.25, 0.5), "test: samples go down to -0.25, the calibration samples to 0,"),
    ],
)
def test_data_that_do_not_go_together(first: Any, second: Any, words: str) -> None:
    net = norse.SequentialState(nn.Linear(2, 3), norse.LIFBoxCell())
    samples = [np.repeat(np.array([[pair]]), 3, axis=1) for pair in (first, second)]
    with pytest.raises(UsageError, match=words):
        osbc_deploy.deploy(net, samples[0], test=samples[1], input_bits=8, backend_samples=0)


@pytest.mark.parametrize(
    ("typical", "test", "bits", "signed"),
    [((0, 3), (0, 7), 3, False), ((0, 0.5), (0.0, 9.0), 8, False), ((-4, 3), (0, 7), 4, True)],
)
def test_what_the_input_carries_is_read_from_calibration_alone(
    typical: Any, test: Any, bits: int, signed: bool
) -> None:
    """Twice the calibration's counts, which is what the one bit to spare holds."""
    torch.manual_seed(0)
    net = norse.SequentialState(
        nn.Linear(2, 3), norse.LIFBoxCell(), nn.Linear(3, 2), norse.LICell()
    )
    given = [np.repeat(np.array([[pair]]), 3, axis=1) for pair in (typical, test)]
    alone, both = (
        osbc_deploy.deploy(net, given[0], test=second, target="loihi2", backend_samples=0)
        for second in (None, given[1])
    )
    found = both.lowered.network.input
    assert (found.bits, found.signed) == (bits, signed)
    assert found == alone.lowered.network.input
    assert (both.input.clipped > 0) == (found.kind == "values")


def test_static_images_become_golden_vectors(deployed: Deployment, tmp_path: Path) -> None:
    osbc_deploy.export(deployed, tmp_path / "c", format="c", samples=IMAGES[:2], repeat=3)
    written = (tmp_path / "c" / "osbc_net_selftest.c").read_text()
    network = deployed.lowered.network
    codes = network.input.codes(np.repeat(IMAGES[:2, None], 3, axis=1))
    counts = np.count_nonzero(codes.reshape(6, -1), axis=1)
    assert ", ".join(map(str, counts)) in written
    for more, words in (
        ({"samples": IMAGES[:2, 0]}, "--repeat T"),
        ({"samples": IMAGES[:2, :, 1:], "repeat": 3}, r"shape \(1, 7, 8\) per time step, the netw"),
        (
            {"samples": -IMAGES, "repeat": 3},
            "samples: go down to .*the network's input has no sign",
        ),
        ({"repeat": 3}, "--repeat: shows --samples, and there are none"),
        ({"samples": IMAGES, "repeat": 0}, "repeat: 0 time steps"),
    ):
        with pytest.raises((ArtefactError, UsageError), match=words):
            osbc_deploy.export(deployed, tmp_path / "d", format="c", **more)
    assert not (tmp_path / "d").exists()


def test_time_is_where_it_is_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", spikes=IMAGES, labels=LABELS)
    for given in (str(tmp_path / "x.npz"), (IMAGES, LABELS), torch.tensor(IMAGES), Images()):
        found = osbc_deploy.load_samples(given, repeat=3)
        assert found.spikes.shape == (24, 3, 1, 8, 8)
        assert np.array_equal(found.spikes[:, 2], IMAGES)
    with pytest.raises(ArtefactError, match="for images and the like without time, --repeat T"):
        osbc_deploy.load_samples(IMAGES.reshape(24, 64))
    assert osbc_deploy.load_samples(IMAGES.reshape(24, 64), repeat=2).spikes.shape == (24, 2, 64)
    with pytest.raises(UsageError, match="x has a time axis already, of 4 steps"):
        osbc_deploy.deploy(norse_net(), check_samples("x", np.zeros((2, 4, 3))), repeat=3)


class Images(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, number: int) -> Any:
        return torch.tensor(IMAGES[number]), int(LABELS[number])


def test_images_without_a_time_axis_lead_to_the_option() -> None:
    with pytest.raises(ArtefactError, match=r"takes \(1, H, W\), gets \(8, 8\).*--repeat T"):
        osbc_deploy.deploy(images_net(), IMAGES, target="loihi2", backend_samples=0)


def test_max_pooling_of_counts_is_no_gate() -> None:
    net = norse.SequentialState(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 4), norse.LIFBoxCell())
    x = RNG.integers(0, 4, (4, 5, 1, 8, 8))
    with pytest.raises(UnsupportedModelError, match="0: .*takes the largest of .*graded values"):
        osbc_deploy.deploy(net, x, target="loihi2", backend_samples=0)


def test_whole_numbers_run_as_counted_by_hand() -> None:
    """Integrators with weights that are codes: sums of payloads times weights, with NumPy."""
    x = RNG.integers(-3, 9, (5, 6, 7))
    weight = np.array(RNG.integers(-127, 128, (4, 7)), np.float32)
    weight[:, 0] = 127
    net = norse.SequentialState(nn.Linear(7, 4, bias=False), norse.IAFCell())
    net[0].weight.data = torch.tensor(weight)
    net[1].p = net[1].p._replace(v_th=torch.tensor(1e4))
    found = osbc_deploy.deploy(
        net, x, target="loihi2", backend_samples=0, sparsity=0.0, bits=8, tune=False
    )
    fixed = found.lowered.network
    done = run(fixed, fixed.input.codes(check_samples("x", x).spikes), states=["1"])
    scale = fixed.populations[0].v_scale
    np.testing.assert_allclose(done.v["1"] * scale, (x @ weight.T).cumsum(axis=1), rtol=1e-6)


def test_the_image_holds_what_the_input_carries(deployed: Deployment, tmp_path: Path) -> None:
    network = deployed.lowered.network
    write_image(network, deployed.mapping, tmp_path / "x.img")
    assert read_image(tmp_path / "x.img").input == network.input


def test_the_c_library_says_how_values_become_its_input(
    deployed: Deployment, tmp_path: Path
) -> None:
    network = deployed.lowered.network
    given = network.input
    folder = export_c(network, tmp_path / "c", name="net").folder
    (tmp_path / "main.c").write_text(
        textwrap.dedent("""
        #include <math.h>
        #include <stdio.h>
        #include "net.h"
        static int32_t state[NET_STATE_BYTES / 4];
        int main(void) {
            static net_input input[NET_INPUTS];
            int32_t output[NET_OUTPUTS];
            double value;
            uint32_t i;
            net_reset(state, sizeof state);
            for (;;) {
                for (i = 0; i < NET_INPUTS; i++) {
                    if (scanf("%lf", &value) != 1) return net_selftest(state, sizeof state);
                    value = nearbyint(value / NET_INPUT_SCALE);
                    value = value > NET_INPUT_HIGH ? NET_INPUT_HIGH : value;
                    input[i] = (net_input)(value < NET_INPUT_LOW ? NET_INPUT_LOW : value);
                }
                if (net_step(state, input, output) != NET_OK) return 9;
                for (i = 0; i < NET_OUTPUTS; i++) printf("%d ", (int)output[i]);
            }
        }
        """)
    )
    sources = [folder / f"net{part}.c" for part in ("", "_weights", "_selftest")]
    program = tmp_path / "main"
    subprocess.run(
        ["gcc", "-std=c99", "-Wall", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover=all",
         f"-I{folder}", tmp_path / "main.c", *sources, "-lm", "-o", program],
        check=True,
    )  # fmt: skip
    x = np.repeat(IMAGES[12:13, None] * 4, 6, axis=1)
    done = subprocess.run(
        [program], input=" ".join(map(repr, x.ravel().tolist())), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    found = np.array(done.stdout.split(), int).reshape(6, -1)
    assert np.array_equal(found, run(network, given.codes(x)).output[0])
    assert given.clipped(x) > 0


class Tutorial(nn.Module):
    """snnTorch's tutorial network, small, called step by step."""

    def __init__(self) -> None:
        super().__init__()
        grad = snntorch.surrogate.fast_sigmoid()
        self.fc1, self.lif1 = nn.Linear(64, 48), snntorch.Leaky(beta=0.9, spike_grad=grad)
        self.fc2, self.lif2 = nn.Linear(48, 10), snntorch.Leaky(beta=0.9, spike_grad=grad)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes = []
        for frame in x:
            spk1, mem1 = self.lif1(self.fc1(frame.flatten(1)), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
        return torch.stack(spikes)


def test_direct_coding_of_digits_loses_no_point() -> None:
    """The short version of ``benchmarks/graded_digits.py``."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    model, steps = Tutorial(), 8
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    shown = images.expand(steps, *images.shape)
    for _ in range(4):
        for part in torch.randperm(1200).split(64):
            loss = nn.functional.cross_entropy(model(shown[:, part]).sum(0), labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        own = float((model(shown[:, 1497:]).sum(0).argmax(1) == labels[1497:]).float().mean())
    done = osbc_deploy.deploy(
        model, (images[:60], labels[:60]), test=(images[1497:], labels[1497:]), repeat=steps,
        sparsity=0.0, bits=8, tune=False, target="loihi2", backend_samples=0, classes=10,
    )  # fmt: skip
    assert own > 0.8
    assert done.accuracy.float_ == pytest.approx(own)
    assert done.accuracy.fixed_point is not None
    assert abs(done.accuracy.fixed_point - own) <= 0.01
