# SPDX-License-Identifier: Apache-2.0
"""What an adapter saves, read off the compiled program and the shapes."""

import jax
import jax.numpy as jnp

import jft
from jft import optim, partition, train
from jft.models import get_family, make_apply_fn, make_prefix_fn
from jft.params import MergeReport, abstract_params, adapters
from jft.paths import flatten

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


def make_encoder():
    """The encoder by its shapes alone: nothing of it is allocated."""
    family, task = get_family("bert"), "sequence_classification"
    config = jft.with_classes(ENCODER, ["a", "b"])
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
        num_layers=12,
        family=family,
        report=MergeReport((), (), (), {}),
    )


def flops_of(model, labels):
    """The compiled training step's, of 8 texts of 64 tokens."""
    ids = jax.ShapeDtypeStruct((8, 64), jnp.int32)

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
    program = step.lower(state, {"input_ids": ids}).compile()
    return program.cost_analysis()["flops"]


def test_a_lora_step_costs_at_most_0_70_of_a_full_one():
    base = make_encoder()
    everything = partition.label_params(base.params, [(".*", "all")])
    lora = adapters.Lora(rank=8)
    model = jft.adapt(base, lora, key=jax.random.key(1))
    labels = adapters.label_adapted(model.params, everything, model.adapter)
    assert flops_of(model, labels) <= 0.70 * flops_of(base, everything)


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
