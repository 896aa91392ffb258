# SPDX-License-Identifier: Apache-2.0
"""Codes and what scales them, against the paper's formulas in numpy."""

import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft.params import quantised
from jft.params.quantised import dequantize, product, quantize
from jft.types import InputError

SHAPES = [(64, 3), (7, 5), (1, 1), (130, 9), (96, 300)]  # whole blocks, odd, many
WIDEST = (1 - 0.6961928009986877) / 2  # half the widest gap between two values of NF4


def draw(shape, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.uniform(0.2, 5.0, size=(1, shape[1]))  # channels of unlike size
    return (rng.normal(size=shape) * rows).astype(np.float32)


def numpy_nf4(matrix):
    """The codes of torch's layout in order, and the parts of the magnitudes."""
    rows = matrix.T
    rows = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).reshape(-1)
    codes, magnitudes = [], []
    for start in range(0, len(rows), 64):
        block = rows[start : start + 64]
        magnitudes.append(np.abs(block).max())
        distance = np.abs(block[:, None] / magnitudes[-1] - np.asarray(quantised.NF4))
        codes += distance.argmin(axis=1).tolist()
    magnitudes = np.asarray(magnitudes)
    deviations, steps = magnitudes - magnitudes.mean(), []
    whole = np.empty(len(magnitudes), int)
    for start in range(0, len(magnitudes), 256):
        group = slice(start, start + 256)
        steps.append(np.abs(deviations[group]).max() / 127)
        whole[group] = np.round(deviations[group] / (steps[-1] or 1))
    return np.asarray(codes), whole, np.asarray(steps), magnitudes.mean()


def numpy_values(codes, whole, steps, mean, shape):
    magnitudes = whole * np.repeat(steps, 256)[: len(whole)] + mean
    values = np.asarray(quantised.NF4)[codes] * np.repeat(magnitudes, 64)[: len(codes)]
    return values.reshape(shape[1], -1)[:, : shape[0]].T


def test_the_values_are_the_papers_quantiles():
    """Of each half of a normal distribution, 8 and 9 of them, zero among both."""
    quantile = np.vectorize(statistics.NormalDist().inv_cdf)
    offset = (1 - 1 / 30 + 1 - 1 / 32) / 2
    upper = quantile(np.linspace(0.5, offset, 9)[1:])
    lower = -quantile(np.linspace(0.5, offset, 8)[1:])
    values = np.sort([*lower, 0.0, *upper]) / upper.max()
    np.testing.assert_allclose(quantised.NF4, values, atol=3e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_nf4_is_the_papers(shape):
    matrix = draw(shape)
    made = jax.device_get(quantize(jnp.asarray(matrix), "nf4"))
    codes, whole, steps, mean = numpy_nf4(matrix)
    assert made["nf4"].shape == (shape[1], -(-shape[0] // 2))
    high, low = made["nf4"] >> 4, made["nf4"] & 15
    found = np.stack([high, low], axis=-1).reshape(-1)
    np.testing.assert_array_equal(found, codes)
    assert (made["nf4"].dtype, made["absmax"].dtype) == (np.uint8, np.int8)
    assert np.abs(made["absmax"].astype(int) - whole).max() <= 1  # where halves round
    np.testing.assert_allclose(made["absmax_step"], steps, rtol=1e-4)
    np.testing.assert_allclose(made["absmax_mean"], mean, rtol=1e-6)
    values = numpy_values(codes, made["absmax"], steps, mean, shape)
    np.testing.assert_allclose(
        dequantize(made, shape[0]), values, atol=1e-5 * np.abs(values).max()
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_nf4_is_near(shape):
    """Within half a gap of the block's magnitude, and what that is rounded by."""
    matrix = draw(shape, seed=1)
    made = quantize(jnp.asarray(matrix), "nf4")
    error = np.abs(np.asarray(dequantize(made, shape[0])) - matrix)
    rows = np.pad(matrix.T, ((0, 0), (0, shape[0] % 2)))
    flat = np.pad(np.abs(rows).reshape(-1), (0, -rows.size % 64)).reshape(-1, 64)
    magnitudes = np.repeat(flat.max(axis=1), 64)[: rows.size].reshape(rows.shape)
    rounding = np.asarray(made["absmax_step"]).max() / 2
    bound = magnitudes[:, : shape[0]].T * WIDEST + rounding
    assert (error <= bound * 1.0001).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_by_hand(shape):
    matrix = draw(shape)
    made = quantize(jnp.asarray(matrix), "int8")
    magnitudes = np.abs(matrix).max(axis=0)
    codes = np.round(matrix / magnitudes * 127).T
    assert made["int8"].dtype == np.int8
    assert np.abs(np.asarray(made["int8"], int) - codes).max() <= 1
    error = np.abs(np.asarray(dequantize(made, shape[0])) - matrix)
    assert (error <= magnitudes / 127 / 2 * 1.0001).all()


def test_zeros_are_zeros():
    for kind in quantised.KINDS:
        made = quantize(jnp.zeros((64, 2)), kind)
        assert not np.asarray(dequantize(made, 64)).any()


def test_bits_a_number():
    shapes = jax.eval_shape(lambda: quantize(jnp.zeros((4096, 4096)), "nf4"))
    bits = 8 * sum(leaf.size * leaf.dtype.itemsize for leaf in shapes.values())
    assert round(bits / 4096**2, 3) == 4.127


@pytest.mark.parametrize("kind", quantised.KINDS)
@pytest.mark.parametrize("shape", [(7, 5), (192, 300), (150, 508)])
def test_a_product_and_its_gradient_are_those_of_the_numbers(kind, shape):
    """Of a matrix taken whole, of one taken in parts, and of blocks across rows."""
    made = quantize(jnp.asarray(draw(shape)), kind)
    matrix = dequantize(made, shape[0])
    x, share = jnp.asarray(draw((6, shape[0]), 2)), jnp.asarray(draw((6, shape[1]), 3))
    y, pull = jax.vjp(lambda x: product(x, made), x)
    size = float(jnp.abs(x @ matrix).max())
    np.testing.assert_allclose(y, x @ matrix, atol=1e-5 * size)
    size = float(jnp.abs(share @ matrix.T).max())
    np.testing.assert_allclose(pull(share)[0], share @ matrix.T, atol=1e-5 * size)


def test_large_products_are_taken_in_parts():
    of = {
        shape: quantize(jnp.zeros(shape), "nf4") for shape in [(192, 300), (150, 508)]
    }
    parts = {shape: quantised._num_parts(made) for shape, made in of.items()}
    assert parts == {(192, 300): 4, (150, 508): 1}


@pytest.mark.parametrize("kind", quantised.KINDS)
def test_half_precision_and_what_is_not_finite(kind):
    made = quantize(jnp.asarray(draw((256, 256))), kind)
    x = jnp.asarray(draw((3, 256)), jnp.bfloat16).at[0, 0].set(jnp.nan)
    y, pull = jax.vjp(lambda x: product(x, made), x)
    dx = pull(y)[0]
    assert y.dtype == dx.dtype == jnp.bfloat16
    for rows in (y, dx):  # of the row that has it, and no other
        assert np.isnan(np.asarray(rows[0], np.float32)).all()
        assert np.isfinite(np.asarray(rows[1:], np.float32)).all()
    expected = x.astype(jnp.float32) @ dequantize(made, 256)
    size = float(jnp.abs(expected[1:]).max())
    np.testing.assert_allclose(
        y[1:].astype(jnp.float32), expected[1:], atol=0.02 * size
    )


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match=r"'nf5'.*\['int8', 'nf4'\]"):
        quantised.check_kind("nf5")
