"""Gates: read, refused, and decided exactly at their limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from osbc_deploy.errors import UsageError
from osbc_deploy.verification.gates import KNOWN, check_gates, check_needs, parse_gates
from osbc_deploy.verification.result import Score, Verification
from verified import verification


@pytest.fixture(scope="module")
def found() -> Verification:
    return verification(bits=3, sparsity=0.7)


def test_all_faults_are_said_at_once_with_the_known_names() -> None:
    with pytest.raises(UsageError) as error:
        parse_gates(
            ["mismatch", "speed=3", "agreement=1.5", "silenced=0.5", "mismatch=nan",
             "accuracy_drop=0.1", "accuracy-drop=0.2", "van_rossum=-1", "clipped=x"]
        )  # fmt: skip
    text = str(error.value)
    for part in (
        "'mismatch' is not of the form NAME=VALUE",
        "'speed' is unknown",
        "agreement: '1.5' is not a share from 0 to 1",
        "silenced: '0.5' is not a whole number",
        "mismatch: 'nan' is not a share",
        "accuracy_drop is given twice",
        "van_rossum: '-1' is not a number of at least 0",
        "clipped: 'x' is not a whole number",
    ):
        assert part in text
    assert all(name in text for name in KNOWN)


def test_gates_that_cannot_be_measured_are_refused_before_the_work() -> None:
    gates = parse_gates(["accuracy=0.9", "backend_mismatches=0", "mismatch=0.1"])
    check_needs(gates, labels=True, backend=True)
    with pytest.raises(UsageError, match="accuracy cannot be measured"):
        check_needs(gates, labels=False, backend=True)
    with pytest.raises(UsageError, match="accuracy, backend_mismatches cannot"):
        check_needs(gates, labels=False, backend=False)


def test_each_gate_measures_what_it_says(found: Verification) -> None:
    total, lower = found.step("total").propagated, found.step("lower").propagated
    float_, fixed = found.score("float"), found.score("fixed point")
    expected = {
        "accuracy": fixed.right / 48,
        "accuracy_drop": (float_.right - fixed.right) / 48,
        "agreement": (fixed.classes == float_.classes).mean(),
        "mismatch": max(d.mismatches / d.neuron_steps for d in total.values()),
        "lowering_mismatch": max(d.mismatches / d.neuron_steps for d in lower.values()),
        "van_rossum": max(d.van_rossum for d in total.values()),
        "membrane_error": max(d.membrane for d in total.values()),
        "silenced": sum(found.silenced.values()),
        "clipped": sum(a.wraps + a.saturations for a in found.activity.values()),
    }
    assert set(expected) == set(KNOWN) - {"backend_mismatches"}
    assert expected["mismatch"] > 0
    findings = check_gates(found, parse_gates([f"{name}=0" for name in expected]))
    assert {f.name: f.value for f in findings} == pytest.approx(expected)
    clipped = {
        name: replace(seen, wraps=3 * n, saturations=n + 1)
        for n, (name, seen) in enumerate(found.activity.items())
    }
    (finding,) = check_gates(replace(found, activity=clipped), parse_gates(["clipped=0"]))
    assert finding.value == (0 + 1) + (3 + 2) + (6 + 3)


@pytest.mark.parametrize("name", ["agreement", "mismatch", "membrane_error", "van_rossum"])
def test_a_gate_holds_at_its_limit_and_not_beyond(found: Verification, name: str) -> None:
    (measured,) = check_gates(found, parse_gates([f"{name}=0"]))
    value, sign = measured.value, -1 if KNOWN[name].bound == "least" else 1
    for limit, ok in ((value, True), (value - sign * 1e-4, False), (value + sign * 1e-4, True)):
        (finding,) = check_gates(found, parse_gates([f"{name}={limit!r}"]))
        assert finding.ok is ok


def test_a_loss_at_its_limit_passes_whatever_the_difference_is_rounded_to(
    found: Verification,
) -> None:
    # 150 samples of class 0, all right before; 1 - 147 / 150 is more than 0.02 by a last bit.
    labels = np.zeros(150, np.int64)
    for lost, ok in ((2, True), (3, True), (4, False)):
        after = np.where(np.arange(150) < lost, 1, 0)
        scores = tuple(
            Score(name, classes, labels, labels)
            for name, classes in (("float", labels), ("fixed point", after))
        )
        (finding,) = check_gates(replace(found, scores=scores), parse_gates(["accuracy_drop=0.02"]))
        assert finding.ok is ok
        kept = f"accuracy={(150 - lost) / 150!r}"
        (finding,) = check_gates(replace(found, scores=scores), parse_gates([kept]))
        assert finding.ok


def test_what_cannot_be_measured_keeps_no_gate(found: Verification) -> None:
    (finding,) = check_gates(found, parse_gates(["backend_mismatches=0"]))
    assert not finding.ok
    assert finding.value is None
