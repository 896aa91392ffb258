# SPDX-License-Identifier: Apache-2.0
"""What an adapter saves, read off the compiled program and the shapes."""

import jax
import jax.numpy as jnp
import pytest

import jft
from experiments.benchmarks.measure import peak_bytes
from jft import optim, partition, train
from jft.models import get_family, make_apply_fn, make_prefix_fn
from jft.params import MergeReport, abstract_params, adapters
from jft.params.quantised import flatten_whole, is_quantised
from jft.params.quantised_module import quantize_params
from jft.paths import flatten
from jft.quantised import choose_products

# BERT-base but for its words
ENCODER = {
    "model_type": "bert",
    "vocab_size": 64,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 64,
}

LLAMA_2_7B = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
}


def make_encoder(num_layers=12):
    """The encoder by its shapes alone: nothing of it is allocated."""
    family, task = get_family("bert"), "sequence_classification"
    config = {**ENCODER, "num_hidden_layers": num_layers}
    config = jft.with_classes(config, ["a", "b"])
    model_config = family.config_from_dict(config)
    module = family.make_module(model_config, task)
    return jft.Pretrained(
        module=module,
        apply_fn=make_apply_fn(module),
        prefix_fn=make_prefix_fn(module),
        params=abstract_params(family, model_config, task=task),
        config=config,
        task=task,
        processor=None,
        generation_config=None,
        class_names=("a", "b"),
        layer_index=family.layer_index(model_config),
        num_layers=num_layers,
        family=family,
        report=MergeReport((), (), (), {}),
    )


def compile_step(model, labels, *, rows=8):
    """The training step of some texts of 64 tokens."""
    ids = jax.ShapeDtypeStruct((rows, 64), jnp.int32)

    def loss_fn(outputs, batch):
        del batch
        return jnp.square(outputs).sum(), jnp.asarray(8.0)

    tx = optim.make_optimizer(labels, learning_rate=1e-3)
    state = jax.eval_shape(
        lambda params, key: train.init_state(params, labels, tx=tx, key=key),
        model.params,
        jax.random.key(0),
    )
    step = train.make_train_step(model.apply_fn, loss_fn, tx, labels)
    return step.lower(state, {"input_ids": ids}).compile()


def quantize(model, kind):
    """As `jft.quantize`, of shapes."""
    made = []

    def quantize(params):
        made.append(jft.quantize(model._replace(params=params), kind))
        return made[0].params

    params = jax.eval_shape(quantize, model.params)
    return made[0]._replace(params=params)


def test_a_lora_step_costs_less_than_a_full_one():
    """Of a batch of 256 tokens; in larger ones the activations outweigh the state."""
    base = make_encoder()
    everything = partition.label_params(base.params, [(".*", "all")])
    lora = adapters.Lora(rank=8)
    model = jft.adapt(base, lora, key=jax.random.key(1))
    labels = adapters.label_adapted(model.params, everything, model.adapter)
    full, small = (
        compile_step(*of, rows=4) for of in ((base, everything), (model, labels))
    )
    one, other = (x.cost_analysis()["flops"] for x in (small, full))
    assert one <= 0.70 * other
    assert peak_bytes(small) <= 0.45 * peak_bytes(full)


def test_a_lora_of_rank_8_is_below_2_percent_of_bert_base():
    family = get_family("bert")
    config = family.variants["bert-base-uncased"]
    task = "sequence_classification"
    params = abstract_params(family, config, task=task)
    products = adapters.find_products(family, config, task)
    head = {"classifier"}
    lora = adapters.Lora(rank=8)
    chosen = adapters.choose_targets(
        lora.targets, products, head=head, modules=adapters.modules_of(flatten(params))
    )
    assert len(chosen) == 12 * 6 + 1  # and the pooler
    own = jax.eval_shape(lambda key: lora.init(chosen, params, key), jax.random.key(0))
    count = partition.num_params
    assert count(own) < 0.02 * count(params)


def test_a_step_never_holds_the_numbers_of_a_quantised_base():
    """Its temporary bytes exceed those of a base in full by far less than these."""
    base, temporary = make_encoder(num_layers=2), {}
    for name, model in (("full", base), ("nf4", quantize(base, "nf4"))):
        adapted = jft.adapt(model, adapters.Lora(rank=8), key=jax.random.key(1))
        everything = partition.label_params(model.params, [(".*", "all")])
        labels = adapters.label_adapted(adapted.params, everything, adapted.adapter)
        memory = compile_step(adapted, labels).memory_analysis()
        temporary[name] = memory.temp_size_in_bytes
    numbers = 4 * 2 * 12 * 768**2
    assert temporary["nf4"] - temporary["full"] < numbers / 5


def num_bytes(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("name", "most"), [("llama-2-7b", 0.29), ("bert-base-uncased", 0.45)]
)
def test_bytes_of_a_base_on_4_bits(name, most):
    """Of its bytes in bfloat16, the whole base's and its products' alone.

    Embeddings stay in full, a fifth of BERT-base and a fiftieth of Llama 2.
    """
    if name == "llama-2-7b":
        family, task = get_family("llama"), "causal_lm"
        config = family.config_from_dict(LLAMA_2_7B)
    else:
        family, task = get_family("bert"), "base"
        config = family.variants[name]
    params = abstract_params(family, config, task=task, dtype=jnp.bfloat16)
    chosen = choose_products(family, config, task, paths=flatten(params))
    made = jax.eval_shape(lambda params: quantize_params(params, chosen, "nf4"), params)
    assert num_bytes(made) <= most * num_bytes(params)
    before, after = flatten(params), flatten_whole(made)
    codes = {path: leaf for path, leaf in after.items() if is_quantised(leaf)}
    in_full = num_bytes([before[path] for path in codes])
    assert num_bytes(codes) <= 0.259 * in_full
