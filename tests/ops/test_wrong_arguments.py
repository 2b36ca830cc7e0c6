"""Errors of the ops for wrong arguments."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from adacache_kernels import ops

SETTINGS = ops.DecideSettings()
ONE = torch.ones(1)
FLAG = torch.ones(1, dtype=torch.int32)
X, Y = torch.zeros(1, 2, 3, 4), torch.ones(1, 2, 3, 4)
SUMS = torch.zeros(1, 1, 1, 3)
BOOK = torch.tensor([[0.1], [2.0]])
MOREG = ops.DecideSettings(apply_moreg=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.distance_update(X, Y[0]), ValueError, r"x_out has shape \(2, 3, 4\)"),
        (lambda: ops.distance_update(X[0], Y[0]), ValueError, "expected 4 dimensions"),
        (lambda: ops.distance_update(X, X, strides=(1, 0)), ValueError, r"strides is \(1, 0\)"),
        (lambda: ops.distance_update(X, X, metric="l3"), ValueError, "metric is 'l3'"),
        (lambda: ops.distance_update(X, X.int()), TypeError, r"x_out is torch\.int32"),
        (lambda: ops.distance_update(X, X.to("meta")), ValueError, "x_out is on meta"),
        (lambda: ops.distance_update(X[:, :1].expand(1, 5, 3, 4), X), ValueError, "x_out has"),
        (lambda: ops.distance_update(X, Y, None, [Y] * 4), ValueError, "4 previous residuals"),
        (lambda: ops.distance_update(X, Y, None, [Y]), ValueError, "one for each of 2 residuals"),
        (lambda: ops.distance_update(X, Y, None, [], ONE.expand(2)), ValueError, "has shape"),
        (lambda: ops.distance_update(X, Y, slot_holds="all"), ValueError, "slot_holds is 'all'"),
        (lambda: ops.distance_update(X, Y, X), ValueError, "slot .* overlaps x_in"),
        (
            lambda: ops.distance_update(X[:, :1], Y[:, :1], None, [X[:, 0:1]], ONE.expand(2)),
            ValueError,
            r"overlaps previous\[0\]",
        ),
        (lambda: ops.residual_update(X, X, Y), ValueError, "slot .* overlaps x_out"),
        (
            lambda: ops.conditional_add(X, [Y, X], ONE.expand(2), FLAG, out=X),
            ValueError,
            r"out .* overlaps residuals\[1\]",
        ),
        (
            lambda: ops.conditional_add(X[..., 1:], [Y[..., 1:]], ONE, FLAG, out=X[..., :-1]),
            ValueError,
            r"out .* overlaps x ",
        ),
        (
            lambda: ops.conditional_add(X[0, 0], [Y[0, 0]], ONE, FLAG, [X[0, 0, :, :1]], X[0, 0]),
            ValueError,
            r"out .* overlaps scales\[0\]",
        ),
        (lambda: ops.conditional_add(X, [Y], ONE, FLAG, out=X.half()), TypeError, "out is"),
        (lambda: ops.conditional_add(X, [Y], ONE, FLAG, out=X[0]), ValueError, "out has shape"),
        (
            lambda: ops.conditional_add(Y, [Y], ONE, FLAG, out=X[..., :1].expand(X.shape)),
            ValueError,
            "out is expanded",
        ),
        (lambda: ops.conditional_add(X, [Y], ONE, FLAG.to("meta")), ValueError, "flag is on meta"),
        (lambda: ops.conditional_add(X, [Y.to(torch.int8)], ONE, FLAG), ValueError, "a scale"),
        (lambda: ops.conditional_add(X, [Y.int()], ONE, FLAG), TypeError, "expected int8 or"),
        (lambda: ops.conditional_add(X, [Y], ONE, FLAG, [None, None]), ValueError, "2 scales"),
        (lambda: ops.conditional_add(X, [Y], ONE, FLAG, [Y]), ValueError, r"scales\[0\] has shape"),
        (lambda: ops.residual_update(X[:, :1].expand(X.shape), X, X), ValueError, "is expanded"),
        (lambda: ops.residual_update(X, X, X[..., :2]), ValueError, "x_in has shape"),
        (lambda: ops.conditional_add(X, [], ONE[:0], FLAG), ValueError, "0 residuals"),
        (lambda: ops.conditional_add(X, [Y] * 5, ONE, FLAG), ValueError, "5 residuals"),
        (lambda: ops.conditional_add(X, [Y, Y], ONE, FLAG), ValueError, "coefficients has shape"),
        (lambda: ops.conditional_add(X, [Y], ONE.double(), FLAG), TypeError, "coefficients is"),
        (lambda: ops.conditional_add(X, [Y], ONE, FLAG.long()), TypeError, "flag is torch.int64"),
        (lambda: ops.conditional_add(X, [Y], ONE, FLAG[:0]), ValueError, "flag has shape"),
        (lambda: ops.decide(X, X[0], BOOK, SETTINGS, 1), ValueError, r"sums has shape \(2, 3, 4\)"),
        (lambda: ops.decide(ONE, SUMS, BOOK, SETTINGS, 1), ValueError, "state has shape"),
        (
            lambda: ops.decide(ops.new_state("cpu"), SUMS, BOOK[0], SETTINGS, 1),
            ValueError,
            "codebook has shape",
        ),
        (
            lambda: ops.decide(ops.new_state("cpu"), SUMS.double(), BOOK, SETTINGS, 1),
            TypeError,
            "sums is",
        ),
        (
            lambda: ops.decide(ops.new_state("cpu"), SUMS, BOOK, MOREG, 1, in_window=True),
            ValueError,
            "give distance_update frame strides",
        ),
        (lambda: ops.DecideSettings("l3"), ValueError, "metric is 'l3', expected one of 'l1'"),
        (lambda: ops.DecideSettings(batch="each"), ValueError, "batch is 'each', expected one of"),
    ],
)
def test_wrong_arguments(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
    assert not X.any(), "something was written"
