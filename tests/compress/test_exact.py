"""Sums and products against Python's whole numbers and fractions, which do not round."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osbc_deploy.compress.exact import WholeSum, product, quadratic
from osbc_deploy.compress.kernels import (
    factorized,
    halfway_many,
    invert,
    solve,
    solve_many,
    subtract,
    take,
)


def test_a_sum_stays_exact_where_floating_point_would_round() -> None:
    rng = np.random.default_rng(0)
    total, exact = WholeSum((3,)), np.zeros(3, object)
    for _ in range(50):
        value = rng.integers(-(2**53), 2**53, 3)
        total.add(value.astype(np.float64), 2**53)
        exact += value.astype(object)
    assert total.finish().tolist() == [float(x) for x in exact]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 700), spread=st.floats(0, 8))
def test_a_product_does_not_depend_on_the_order_of_its_terms(
    seed: int, k: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(4, k)), rng.normal(size=(k, 5))
    a *= 10.0 ** (spread * rng.random((4, 1)))
    b *= 10.0 ** (spread * rng.random((1, 5)))
    order = rng.permutation(k)
    for coarse, digits in ((False, 1e-11), (True, 1e-5)):
        found = product(a, b, coarse=coarse)
        assert np.array_equal(found, product(a[:, order], b[order], coarse=coarse))
        size = np.abs(a) @ np.abs(b) + np.abs(a).max(axis=1)[:, None] * np.abs(b).max(axis=0)
        assert (np.abs(found - a @ b) <= digits * size).all()


def test_a_product_of_few_digits_is_exact() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(-999, 999, (3, 40)) / 64, rng.integers(-999, 999, (40, 600)) / 8
    exact = [
        [sum(Fraction(x) * Fraction(y) for x, y in zip(r, c, strict=True)) for c in b.T] for r in a
    ]
    assert product(a, b).tolist() == [[float(x) for x in row] for row in exact]
    assert quadratic(a, b[:, :40])[1] == float(
        sum(x * Fraction(y) for x, y in zip(exact[1], a[1], strict=False))
    )
    assert not quadratic(0 * a, b[:, :40]).any()


def test_terms_are_taken_away_one_after_the_other() -> None:
    # The one-at-a-time loop of the definition, in Python's own floating point.
    rng = np.random.default_rng(2)
    A, B, C = rng.normal(size=(11, 9)), rng.normal(size=(11, 300)), rng.normal(size=(9, 300))
    expected = C.copy()
    for i in range(9):
        for j in range(300):
            value = float(C[i, j])
            for k in range(2, 11):
                value = value - float(A[k, i]) * float(B[k, j])
            expected[i, j] = value
    whole, row = C.copy(), C.copy()
    subtract(whole, A, B, 0, 9, 2, 11, 0, 300, False)
    take(row, 4, A, 4, B, 2, 11, 0, 300)
    assert np.array_equal(whole, expected)
    assert np.array_equal(row[4], expected[4])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 11),
    columns=st.integers(1, 170),
    terms=st.integers(0, 140),
    single=st.booleans(),
)
def test_tiles_of_any_shape_take_terms_one_after_the_other(
    seed: int, rows: int, columns: int, terms: int, single: bool
) -> None:
    rng = np.random.default_rng(seed)
    kind = np.float32 if single else np.float64
    A, B, C = (
        rng.normal(size=shape).astype(kind)
        for shape in ((terms + 2, rows + 2), (terms + 2, columns + 2), (rows + 2, columns + 2))
    )
    inner = np.s_[1 : 1 + rows, 1 : 1 + columns]
    expected = C.copy()
    for k in range(1, terms + 1):
        # NumPy rounds each product and each difference, as a loop over elements does.
        expected[inner] -= A[k, 1 : 1 + rows, None] * B[k, 1 : 1 + columns]
    whole, upper, row = C.copy(), C.copy(), C.copy()
    subtract(whole, A, B, 1, 1 + rows, 1, 1 + terms, 1, 1 + columns, False)
    assert np.array_equal(whole, expected)
    subtract(upper, A, B, 1, 1 + rows, 1, 1 + terms, 1, 1 + columns, True)
    assert np.array_equal(np.triu(upper), np.triu(expected))
    # Nothing but the block changes, though below the diagonal it may be anything.
    upper[inner] = C[inner]
    assert np.array_equal(upper, C)
    take(row, rows, A, 1, B, 1, 1 + terms, 1, 1 + columns)
    for k in range(1, terms + 1):
        C[rows, 1 : 1 + columns] -= A[k, 1] * B[k, 1 : 1 + columns]
    assert np.array_equal(row, C)


@pytest.mark.parametrize("n", [1, 5, 64, 150])
def test_factor_inverse_and_solutions_are_numpys(n: int) -> None:
    rng = np.random.default_rng(n)
    x = rng.normal(size=(2 * n, n))
    H = x.T @ x
    # Only the upper triangle is read.
    given_ = np.triu(H) + np.tril(rng.normal(size=(n, n)), -1)
    U = factorized(given_.copy())
    assert np.allclose(np.triu(U), np.linalg.cholesky(H).T)
    B = rng.normal(size=(n, 3))
    one, many, half = B[:, 0].copy(), B.copy(), B.copy()
    solve(U, one)
    solve_many(U, many)
    halfway_many(U, half)
    assert np.allclose(many, np.linalg.solve(H, B))
    assert np.allclose(one, many[:, 0])
    assert np.allclose(half, np.linalg.solve(np.linalg.cholesky(H), B))
    inverse = np.empty((n, n))
    invert(U, inverse)
    assert np.allclose(np.triu(inverse), np.triu(np.linalg.inv(H)))


def test_an_indefinite_matrix_has_no_factor() -> None:
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        factorized(np.array([[1.0, 2.0], [2.0, 1.0]]))
