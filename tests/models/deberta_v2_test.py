# SPDX-License-Identifier: Apache-2.0
"""What DeBERTa has and BERT has not: distances, their buckets, configs it refuses."""

import jax.numpy as jnp
import numpy as np
import pytest

from jft.models.deberta_v2_config import bucket, config_from_dict
from jft.models.disentangled import score_distances
from jft.types import InputError


@pytest.mark.parametrize("length", [1, 2, 5])
def test_each_pair_has_the_row_of_its_distance(length):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, length, 3, 4)).astype(np.float32)
    rows = rng.normal(size=(2 * length - 1, 3, 4)).astype(np.float32)
    scores = score_distances(jnp.asarray(x), jnp.asarray(rows))
    assert scores.shape == (2, 3, length, length)
    for i in range(length):
        for j in range(length):
            expected = (x[:, i] * rows[j - i + length - 1]).sum(-1)
            np.testing.assert_allclose(scores[:, :, i, j], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("buckets", "longest"), [(256, 512), (8, 33), (6, 16), (3, 9), (48, 512)]
)
def test_distances_fall_into_the_buckets_of_transformers(buckets, longest):
    torch = pytest.importorskip("torch")
    from transformers.models.deberta_v2 import modeling_deberta_v2

    distance = np.arange(-600, 601)
    expected = modeling_deberta_v2.make_log_bucket_position(
        torch.from_numpy(distance), buckets, longest
    )
    found = bucket(distance, buckets, longest)
    np.testing.assert_array_equal(found, expected.long().numpy())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pos_att_type": "c2p|p2p"}, r"pos_att_type is 'c2p\|p2p'"),
        ({"norm_rel_ebd": "batch_norm"}, "norm_rel_ebd is 'batch_norm'"),
        ({"norm_rel_ebd": "layer_norm"}, "none without relative_attention"),
        ({"position_buckets": 1}, "position_buckets is 1; it must be 2 to 1021"),
        ({"position_buckets": 1022}, "position_buckets is 1022"),
        ({"conv_kernel_size": 4}, "conv_kernel_size is 4; it must be 0 or odd"),
        ({"conv_groups": 5}, "conv_groups is 5; it must be a divisor of 1536"),
        ({"legacy": False, "embedding_size": 128}, "legacy is False"),
        ({"attention_head_size": 32}, "attention_head_size is 32; .* = 64"),
        ({"pooler_hidden_size": 768}, "pooler_hidden_size is 768; .* = 1536"),
        ({"hidden_size": 100}, "hidden_size is 100, which does not divide"),
    ],
)
def test_what_the_model_cannot_honour_is_named(changes, message):
    with pytest.raises(InputError, match=message):
        config_from_dict(changes)
