# SPDX-License-Identifier: Apache-2.0
"""The other names under which published checkpoints keep a model's tensors."""

import pytest

from jft.models import get_family
from jft.params import abstract_params, checkpoint_keys, find_keys
from jft.paths import flatten

TINY = {
    "vocab_size": 41,
    "num_hidden_layers": 1,
    "hidden_size": 24,
    "num_attention_heads": 3,
}
WORDS = "embeddings.word_embeddings.weight"


def own_keys(model_type, task):
    family = get_family(model_type)
    template = abstract_params(family, family.config_from_dict(TINY), task=task)
    return family, checkpoint_keys(family, task, flatten(template))


@pytest.mark.parametrize(
    ("model_type", "copies"),
    [
        pytest.param(
            "roberta",
            {
                "lm_head.decoder.weight": f"roberta.{WORDS}",
                "lm_head.decoder.bias": "lm_head.bias",
            },
            id="roberta",
        ),
        pytest.param(
            "distilbert",
            {"vocab_projector.weight": f"distilbert.{WORDS}"},
            id="distilbert",
        ),
        pytest.param(
            "electra",
            {"generator_lm_head.weight": f"electra.{WORDS}"},
            id="electra",
        ),
        pytest.param(
            "albert",
            {
                "predictions.decoder.weight": f"albert.{WORDS}",
                "predictions.decoder.bias": "predictions.bias",
            },
            id="albert",
        ),
    ],
)
def test_tied_copy_is_read_only_where_the_first_is_absent(model_type, copies):
    family, keys = own_keys(model_type, "masked_lm")
    both = find_keys(family, "masked_lm", keys, [*keys.values(), *copies])
    assert both.keys == keys
    assert both.unused == ()
    lacking = [key for key in keys.values() if key not in copies.values()]
    alone = find_keys(family, "masked_lm", keys, [*lacking, *copies])
    first_to_copy = {first: copy for copy, first in copies.items()}
    assert alone.keys == {p: first_to_copy.get(k, k) for p, k in keys.items()}
    assert alone.unused == ()
