# SPDX-License-Identifier: Apache-2.0
"""LoRA beside a convolution against torch, and biases of convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jft
from jft.params.adapters import (
    AdaptedModule,
    BitFit,
    Lora,
    Member,
    Product,
    Term,
    adapters_of,
    check_foldable,
    fold,
    sum_adapters,
)
from jft.types import InputError
from tests.params.adapters import table

RNG = np.random.default_rng(0)


class Toy(nn.Module):
    """One convolution."""

    strides: int
    padding: int
    groups: int

    @nn.compact
    def __call__(self, x):
        return nn.Conv(
            8,
            (3, 2),
            strides=self.strides,
            padding=self.padding,
            feature_group_count=self.groups,
            name="conv",
        )(x)


def array(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
    ("strides", "padding", "groups"), [(1, 0, 1), (2, 1, 1), (2, 1, 2)]
)
def test_as_torch_computes_it(strides, padding, groups):
    torch = pytest.importorskip("torch")
    conv2d = torch.nn.functional.conv2d
    rank, scale = 4, 6.0 / 4
    kernel, bias = array(3, 2, 4 // groups, 8), array(8)
    a, b = array(3, 2, 4, rank), array(rank // groups, 8)
    adapter = Lora(rank=rank, alpha=6.0, targets=("conv",))
    product = Product("conv", kernel.shape, groups=groups)
    assert adapter.shapes("conv", product) == {"lora_A": a.shape, "lora_B": b.shape}
    params = {
        "conv": {"kernel": kernel, "bias": bias},
        "adapters": {"conv": {"lora_A": a, "lora_B": b}},
    }
    x, toy = array(2, 7, 6, 4), Toy(strides, padding, groups)
    y = AdaptedModule(toy, adapter).apply({"params": params}, x)

    def to_torch(array, *axes):
        return torch.from_numpy(np.array(array)).permute(*axes)

    pixels = to_torch(x, 0, 3, 1, 2)
    plain = conv2d(
        pixels,
        to_torch(kernel, 3, 2, 0, 1),
        to_torch(bias, 0),
        stride=strides,
        padding=padding,
        groups=groups,
    )
    low = conv2d(pixels, to_torch(a, 3, 2, 0, 1), stride=strides, padding=padding)
    added = conv2d(low, to_torch(b, 1, 0)[:, :, None, None], groups=groups)
    expected = (plain + scale * added).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(y, expected, atol=1e-4)

    if groups > 1:
        with pytest.raises(InputError, match="conv is a convolution in 2 groups"):
            check_foldable(params, adapter, products={"conv": product})
        return
    folded = fold(params, adapter, products={"conv": product})
    np.testing.assert_allclose(toy.apply({"params": folded}, x), expected, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_sum_is_the_sum_of_what_each_adds(groups):
    toy, x, kernel = Toy(1, 1, groups), array(2, 7, 6, 4), array(3, 2, 4 // groups, 8)
    base = {"conv": {"kernel": kernel, "bias": array(8)}}

    def answer(adapter, leaves_of):
        params = {**base, "adapters": leaves_of}
        return AdaptedModule(toy, adapter).apply({"params": params}, x)

    plain, terms = toy.apply({"params": base}, x), {}
    expected = plain
    for rank, weight in ((2, 0.5), (4, -2.0)):
        adapter = Lora(rank=rank, targets=("conv",))
        a, b = array(3, 2, 4, rank), array(rank // groups, 8)
        leaves_of = {"conv": {"lora_A": a, "lora_B": b}}
        terms[str(rank)] = Term(weight, Member(adapter, leaves_of, {}))
        expected += weight * (answer(adapter, leaves_of) - plain)
    got = answer(*sum_adapters(terms))
    np.testing.assert_allclose(got, expected, atol=1e-3, rtol=1e-4)


def test_of_patches():
    """The patch embedding is a convolution; torch's bound is of all that it reads."""
    base, batch = table.make_model("vit")
    model = jft.adapt(
        base, Lora(rank=2, targets=("projection",)), key=jax.random.key(0)
    )
    (leaves,) = adapters_of(model.params).values()
    assert leaves["lora_A"].shape == (4, 4, 3, 2)
    assert leaves["lora_B"].shape == (2, 16)
    largest = float(jnp.abs(leaves["lora_A"]).max())
    assert 0.8 * 48**-0.5 < largest <= 48**-0.5
    moved = table.trained(model.params)
    folded = jft.fold(model, params=moved)
    np.testing.assert_allclose(
        folded.apply_fn(folded.params, batch, key=None),
        model.apply_fn(moved, batch, key=None),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rank": 49}, r"rank 49 .*\[4, 4, 3, 16\]; expected 1 to 16"),
        ({"dora": True, "rank": 2}, "convolution, and dora is for products alone"),
        ({"init_method": "pissa", "rank": 2}, "and pissa is for products alone"),
    ],
)
def test_settings_that_do_not_fit(settings, said):
    base, _ = table.make_model("vit")
    lora = Lora(targets=("projection",), **settings)
    with pytest.raises(InputError, match=said):
        jft.adapt(base, lora, key=jax.random.key(0))


def test_rank_and_groups():
    product = {"conv": Product("conv", (3, 2, 2, 8), groups=2)}
    params = {"conv": {"kernel": array(3, 2, 2, 8)}}
    with pytest.raises(InputError, match="2 groups; expected a multiple of 2"):
        Lora(rank=3).init(product, params, jax.random.key(0))


def test_biases_of_convolutions_move():
    bitfit = BitFit()
    path = "vit/embeddings/patch_embeddings/projection"
    assert bitfit.moves(f"{path}/bias", (), ())
    assert not bitfit.moves(f"{path}/kernel", (), ())
    lora = Lora(bias="lora_only")
    assert lora.moves(f"{path}/bias", (path,), ())
