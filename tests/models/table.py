# SPDX-License-Identifier: Apache-2.0
"""One row a family of text models: what the contract and parity tests run over.

A tiny config whose variants turn every field that changes the arithmetic, and the
published sizes. ``families_test.py`` fails when a family has no row.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Row(NamedTuple):
    """How one family is tested."""

    config: Mapping[str, Any]  # tiny, without dropout; two blocks or more
    # name -> (task to compare, changes); the plain config is compared for every head
    variants: Mapping[str, tuple[str, Mapping[str, Any]]]
    num_params: Mapping[str, tuple[str, int]]  # published name -> (task, exact count)
    dropout: Mapping[str, float]  # every rate that training has, all different
    # (regex of a checkpoint's key, factor): brings the logits' spread to about 1
    scales: Sequence[tuple[str, float]] = ()
    # parameters whose gradient is zero but for rounding, such as a key's bias
    zero_grad: str = r"(?!)"
    encoder_decoder: bool = False
    left_padding: bool = False  # one text is padded on the left
    token_types: int = 0  # ids of token types to draw from; 0: the field is left out


# RoBERTa's and XLM-RoBERTa's row; only the published sizes differ
ROBERTA = Row(
    config={
        "vocab_size": 41,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "max_position_embeddings": 16,
        "type_vocab_size": 2,
        "pad_token_id": 1,
        "layer_norm_eps": 1e-5,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    variants={
        "untied, relu, large eps, padding 3": (
            "masked_lm",
            {
                "tie_word_embeddings": False,
                "hidden_act": "relu",
                "layer_norm_eps": 0.1,
                "pad_token_id": 3,
            },
        ),
        "one token type, tanh gelu, one head": (
            "base",
            {"type_vocab_size": 1, "hidden_act": "gelu_new", "num_attention_heads": 1},
        ),
    },
    scales=[(r"classifier\..*weight", 1.5), (r"qa_outputs\.weight", 1.5)],
    num_params={
        "roberta-base": ("base", 124_645_632),
        "roberta-large": ("base", 355_359_744),
        "distilroberta-base": ("base", 82_118_400),
    },
    dropout={
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.2,
        "classifier_dropout": 0.3,
    },
    zero_grad=r".*attention/self/key/bias",
    # positions are counted behind it; the first token has no gradient then
    left_padding=True,
    token_types=2,
)

# BART, mBART and Marian are built of the same parts
BART = {
    "vocab_size": 41,
    "d_model": 24,
    "encoder_layers": 2,
    "encoder_ffn_dim": 40,
    "encoder_attention_heads": 3,
    "decoder_layers": 2,
    "decoder_ffn_dim": 36,
    "decoder_attention_heads": 4,
    "max_position_embeddings": 12,
    "dropout": 0.0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}

TABLE: dict[str, Row] = {
    "albert": Row(
        config={
            "vocab_size": 41,
            "embedding_size": 16,
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_hidden_groups": 2,  # the first runs two layers, the second one
            "num_attention_heads": 3,
            "intermediate_size": 40,
            "max_position_embeddings": 16,
            "classifier_dropout_prob": 0.0,
        },
        variants={
            "untied, relu, large eps, padding 3, a group of two": (
                "masked_lm",
                {
                    "tie_word_embeddings": False,
                    "hidden_act": "relu",
                    "layer_norm_eps": 0.1,
                    "pad_token_id": 3,
                    "inner_group_num": 2,
                    "num_hidden_groups": 1,
                    "num_hidden_layers": 2,
                },
            ),
            "one width, one token type, gelu, one head": (
                "sequence_classification",
                {
                    "num_hidden_groups": 1,
                    "num_hidden_layers": 2,
                    "embedding_size": 24,
                    "type_vocab_size": 1,
                    "hidden_act": "gelu",
                    "num_attention_heads": 1,
                },
            ),
        },
        scales=[(r"classifier\.weight", 2.0)],
        num_params={
            "albert-base-v2": ("base", 11_683_584),
            "albert-large-v2": ("base", 17_683_968),
            "albert-xlarge-v2": ("base", 58_724_864),
            "albert-xxlarge-v2": ("base", 222_595_584),
        },
        dropout={
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.2,
            "classifier_dropout_prob": 0.3,
        },
        zero_grad=r".*attention/key/bias",
        left_padding=True,  # the first token is padding then, and has no gradient
        token_types=2,
    ),
    "bart": Row(
        config=BART,
        variants={
            "untied, scaled, relu": (
                "seq2seq_lm",
                {
                    "tie_word_embeddings": False,
                    "scale_embedding": True,
                    "activation_function": "relu",
                },
            ),
        },
        num_params={
            "bart-base": ("base", 139_420_416),
            "bart-large": ("base", 406_291_456),
        },
        dropout={
            "dropout": 0.1,
            "attention_dropout": 0.2,
            "activation_dropout": 0.3,
            "classifier_dropout": 0.4,
        },
        zero_grad=r".*/k_proj/bias|final_logits_bias",
        encoder_decoder=True,
    ),
    "bert": Row(
        config={
            "vocab_size": 41,
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 40,
            "max_position_embeddings": 16,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        variants={
            "untied, tanh gelu, large eps": (
                "masked_lm",
                {
                    "tie_word_embeddings": False,
                    "hidden_act": "gelu_new",
                    "layer_norm_eps": 0.1,
                },
            ),
            "one token type, relu, one head": (
                "sequence_classification",
                {"type_vocab_size": 1, "hidden_act": "relu", "num_attention_heads": 1},
            ),
        },
        scales=[(r"classifier\.weight", 2.0), (r"qa_outputs\.weight", 1.5)],
        num_params={
            "bert-base-uncased": ("base", 109_482_240),
            "bert-large-uncased": ("base", 335_141_888),
            "bert-base-multilingual-cased": ("base", 177_853_440),
            "all-MiniLM-L6-v2": ("base", 22_713_216),
        },
        dropout={
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.2,
            "classifier_dropout": 0.3,
        },
        zero_grad=r".*attention/self/key/bias",
        token_types=2,
    ),
    "deberta-v2": Row(
        config={
            "vocab_size": 41,
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 40,
            "max_position_embeddings": 16,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            # as in version 3
            "position_biased_input": False,
            "relative_attention": True,
            "position_buckets": 4,
            "pos_att_type": ["p2c", "c2p"],
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
        },
        variants={
            "everything else, untied": (
                "masked_lm",
                {
                    "position_biased_input": True,
                    "position_buckets": -1,
                    "max_relative_positions": 3,
                    "pos_att_type": "p2c|c2p",
                    "share_att_key": False,
                    "norm_rel_ebd": "none",
                    "embedding_size": 16,
                    "type_vocab_size": 3,
                    "conv_kernel_size": 3,
                    "conv_groups": 2,
                    "conv_act": "gelu",
                    "tie_word_embeddings": False,
                },
            ),
            "c2p alone, convolution, pooler": (
                "sequence_classification",
                {
                    "pos_att_type": ["c2p"],
                    "share_att_key": False,
                    "conv_kernel_size": 5,
                    "pooler_hidden_act": "tanh",
                    "hidden_act": "gelu_new",
                },
            ),
            "p2c alone, the newer head, large eps": (
                "masked_lm",
                {
                    "pos_att_type": ["p2c"],
                    "position_buckets": 7,
                    "legacy": False,
                    "layer_norm_eps": 0.1,
                },
            ),
            "no distances": (
                "token_classification",
                {"relative_attention": False, "norm_rel_ebd": "none"},
            ),
        },
        scales=[(r"classifier\.weight", 2.0)],
        num_params={
            "deberta-v3-xsmall": ("base", 70_682_112),
            "deberta-v3-small": ("base", 141_304_320),
            "deberta-v3-base": ("base", 183_831_552),
            "deberta-v3-large": ("base", 434_012_160),
            "mdeberta-v3-base": ("base", 278_218_752),
            "deberta-v2-xlarge": ("base", 884_593_152),
            "deberta-v2-xxlarge": ("base", 1_564_549_632),
        },
        dropout={
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.2,
            "pooler_dropout": 0.3,
            "cls_dropout": 0.4,
        },
        # where the first token is padding, its own row of the mask matters
        left_padding=True,
        token_types=3,
    ),
    "distilbert": Row(
        config={
            "vocab_size": 41,
            "dim": 24,
            "n_layers": 2,
            "n_heads": 3,
            "hidden_dim": 40,
            "max_position_embeddings": 16,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "qa_dropout": 0.0,
            "seq_classif_dropout": 0.0,
        },
        variants={
            "untied, relu, sinusoids, one head": (
                "masked_lm",
                {
                    "tie_word_embeddings": False,
                    "activation": "relu",
                    "sinusoidal_pos_embds": True,
                    "n_heads": 1,
                },
            ),
        },
        scales=[
            # small enough for an eps of 1e-5 to differ from the fixed 1e-12
            (r".*(?:word|position)_embeddings\.weight", 0.1),
            (r"vocab_layer_norm\.weight", 8.0),
            (r"vocab_projector\.weight", 0.15),
            (r"pre_classifier\.weight", 1.5),
        ],
        num_params={
            "distilbert-base-uncased": ("base", 66_362_880),
            "distilbert-base-cased": ("base", 65_190_912),
            "distilbert-base-multilingual-cased": ("base", 134_734_080),
        },
        dropout={
            "dropout": 0.1,
            "attention_dropout": 0.2,
            "qa_dropout": 0.3,
            "seq_classif_dropout": 0.4,
        },
        zero_grad=r".*attention/k_lin/bias",
        left_padding=True,  # the first token is padding then, and has no gradient
    ),
    "electra": Row(
        config={
            "vocab_size": 41,
            "embedding_size": 16,
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 40,
            "max_position_embeddings": 16,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        variants={
            "untied, relu, large eps, padding 3": (
                "masked_lm",
                {
                    "tie_word_embeddings": False,
                    "hidden_act": "relu",
                    "layer_norm_eps": 0.1,
                    "pad_token_id": 3,
                },
            ),
            "one width, one token type, tanh gelu, one head": (
                "sequence_classification",
                {
                    "embedding_size": 24,
                    "type_vocab_size": 1,
                    "hidden_act": "gelu_new",
                    "num_attention_heads": 1,
                },
            ),
        },
        scales=[(r"classifier\..*weight", 1.5), (r"qa_outputs\.weight", 1.5)],
        num_params={
            "electra-small-discriminator": ("base", 13_483_008),
            "electra-base-discriminator": ("base", 108_891_648),
            "electra-large-discriminator": ("base", 334_092_288),
            "electra-base-generator": ("masked_lm", 33_740_602),
            "electra-large-generator": ("masked_lm", 51_295_290),
        },
        dropout={
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.2,
            "classifier_dropout": 0.3,
        },
        zero_grad=r".*attention/self/key/bias",
        left_padding=True,  # the first token is padding then, and has no gradient
        token_types=2,
    ),
    "gemma2": Row(
        config={
            "vocab_size": 43,
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 16,
            "sliding_window": 3,
            "query_pre_attn_scalar": 11,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
        variants={
            "untied, uncapped, types, biases, ungrouped, relu, large eps, linear": (
                "causal_lm",
                {
                    "tie_word_embeddings": False,
                    "attn_logit_softcapping": None,
                    "final_logit_softcapping": None,
                    "layer_types": ["full_attention", "sliding_attention"],
                    "attention_bias": True,
                    "num_key_value_heads": 4,
                    "hidden_activation": "relu",
                    "rms_norm_eps": 0.1,
                    "rope_scaling": {"type": "linear", "factor": 3.0},
                    "rope_theta": 100.0,
                },
            ),
        },
        num_params={
            "gemma-2-2b": ("causal_lm", 2_614_341_888),
            "gemma-2-9b": ("causal_lm", 9_241_705_984),
        },
        dropout={"attention_dropout": 0.1, "classifier_dropout": 0.2},
        left_padding=True,
    ),
    "gemma3_text": Row(
        config={
            "vocab_size": 43,
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 16,
            "sliding_window": 3,
            "sliding_window_pattern": 2,
            "query_pre_attn_scalar": 11,
            "rope_theta": 50.0,
            "rope_local_base_freq": 20.0,
            "rope_scaling": {"rope_type": "linear", "factor": 3.0},
        },
        variants={
            "untied, capped, types, biases, ungrouped, relu, large eps, llama3": (
                "causal_lm",
                {
                    "tie_word_embeddings": False,
                    "final_logit_softcapping": 3.0,
                    "layer_types": ["full_attention", "sliding_attention"],
                    "attention_bias": True,
                    "num_key_value_heads": 4,
                    "hidden_activation": "relu",
                    "rms_norm_eps": 0.1,
                    "rope_scaling": None,
                    "rope_parameters": {
                        "sliding_attention": {
                            "rope_type": "default",
                            "rope_theta": 9.0,
                        },
                        "full_attention": {
                            "rope_type": "llama3",
                            "rope_theta": 50.0,
                            "factor": 8.0,
                            "low_freq_factor": 1.0,
                            "high_freq_factor": 4.0,
                            "original_max_position_embeddings": 12,
                        },
                    },
                },
            ),
            "bidirectional": (
                "base",
                {"use_bidirectional_attention": True, "sliding_window": 5},
            ),
        },
        num_params={
            "gemma-3-270m": ("causal_lm", 268_098_176),
            "gemma-3-1b": ("causal_lm", 999_885_952),
            "embeddinggemma-300m": ("base", 302_863_104),
        },
        dropout={"attention_dropout": 0.1},
        left_padding=True,
    ),
    "gpt2": Row(
        config={
            "vocab_size": 41,
            "n_embd": 24,
            "n_layer": 2,
            "n_head": 3,
            "n_positions": 16,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "classifier_dropout": 0.0,
        },
        variants={
            "untied, narrow, relu, large eps, scaled by block": (
                "causal_lm",
                {
                    "tie_word_embeddings": False,
                    "n_inner": 40,
                    "activation_function": "relu",
                    "layer_norm_epsilon": 0.1,
                    "scale_attn_by_inverse_layer_idx": True,
                },
            ),
            "unscaled, upcast": (
                "question_answering",
                {
                    "scale_attn_weights": False,
                    "scale_attn_by_inverse_layer_idx": True,
                    "reorder_and_upcast_attn": True,
                    "activation_function": "gelu_fast",
                },
            ),
        },
        num_params={
            "distilgpt2": ("base", 81_912_576),
            "gpt2": ("base", 124_439_808),
            "gpt2-medium": ("base", 354_823_168),
            "gpt2-large": ("base", 774_030_080),
            "gpt2-xl": ("base", 1_557_611_200),
        },
        dropout={
            "resid_pdrop": 0.1,
            "embd_pdrop": 0.2,
            "attn_pdrop": 0.3,
            "classifier_dropout": 0.4,
        },
        left_padding=True,
        token_types=3,
    ),
    "gpt_neox": Row(
        config={
            "vocab_size": 41,
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 40,
            "max_position_embeddings": 16,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "classifier_dropout": 0.0,
        },
        variants={
            "tied, in sequence, no bias, half rotary of the old names": (
                "causal_lm",
                {
                    "tie_word_embeddings": True,
                    "use_parallel_residual": False,
                    "attention_bias": False,
                    "rotary_pct": 0.5,
                    "rotary_emb_base": 100,
                    "hidden_act": "relu",
                    "layer_norm_eps": 0.1,
                },
            ),
            "all rotary, linear": (
                "question_answering",
                {
                    "rope_parameters": {
                        "rope_type": "linear",
                        "factor": 2.0,
                        "rope_theta": 50.0,
                        "partial_rotary_factor": 1.0,
                    },
                },
            ),
        },
        num_params={
            "pythia-70m": ("causal_lm", 70_426_624),
            "pythia-160m": ("causal_lm", 162_322_944),
            "pythia-1.4b": ("causal_lm", 1_414_647_808),
            "pythia-6.9b": ("causal_lm", 6_857_302_016),
            "gpt-neox-20b": ("causal_lm", 20_554_567_680),
        },
        dropout={
            "hidden_dropout": 0.1,
            "attention_dropout": 0.2,
            "classifier_dropout": 0.3,
        },
        left_padding=True,
    ),
    "llama": Row(
        config={
            "vocab_size": 43,
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 16,
            "pad_token_id": 0,
        },
        variants={
            "all biases, tied, wide heads, one group, relu, large eps": (
                "causal_lm",
                {
                    "attention_bias": True,
                    "mlp_bias": True,
                    "tie_word_embeddings": True,
                    "head_dim": 8,
                    "num_key_value_heads": 1,
                    "hidden_act": "relu",
                    "rms_norm_eps": 0.1,
                },
            ),
            "rope linear, ungrouped, padding's id is a word's": (
                "causal_lm",
                {
                    "pad_token_id": 35,
                    "num_key_value_heads": None,
                    "rope_scaling": {"type": "linear", "factor": 3.0},
                    "rope_theta": 100.0,
                },
            ),
            "rope dynamic, text longer than it knows": (
                "causal_lm",
                {
                    "max_position_embeddings": 4,
                    "rope_parameters": {"rope_type": "dynamic", "factor": 2.0},
                },
            ),
            "rope llama3": (
                "causal_lm",
                {
                    "rope_parameters": {
                        "rope_type": "llama3",
                        "rope_theta": 50.0,
                        "factor": 8.0,
                        "low_freq_factor": 1.0,
                        "high_freq_factor": 4.0,
                        "original_max_position_embeddings": 12,
                    },
                    "head_dim": 12,
                },
            ),
            "rope yarn": (
                "causal_lm",
                {
                    "rope_parameters": {
                        "rope_type": "yarn",
                        "rope_theta": 50.0,
                        "factor": 4.0,
                        "beta_fast": 2.0,
                        "beta_slow": 0.5,
                        "original_max_position_embeddings": 12,
                    },
                    "head_dim": 12,
                },
            ),
        },
        num_params={
            "TinyLlama-1.1B": ("causal_lm", 1_100_048_384),
            "SmolLM-135M": ("causal_lm", 134_515_008),
            "SmolLM2-360M": ("causal_lm", 361_821_120),
            "Llama-2-7b": ("causal_lm", 6_738_415_616),
            "Llama-3.1-8B": ("causal_lm", 8_030_261_248),
            "Llama-3.2-1B": ("causal_lm", 1_235_814_400),
        },
        dropout={"attention_dropout": 0.1, "classifier_dropout": 0.2},
        left_padding=True,
    ),
    "marian": Row(
        config={
            **BART,
            "activation_function": "swish",
            "scale_embedding": True,
            "pad_token_id": 40,
            "eos_token_id": 0,
            "decoder_start_token_id": 40,
        },
        variants={
            "two tables": (
                "seq2seq_lm",
                {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 43},
            ),
            "untied, unscaled": (
                "seq2seq_lm",
                {"tie_word_embeddings": False, "scale_embedding": False},
            ),
        },
        num_params={"opus-mt-en-de": ("base", 74_410_496)},
        dropout={
            "dropout": 0.1,
            "attention_dropout": 0.2,
            "activation_dropout": 0.3,
        },
        # torch trains the bare model's sinusoids once it has read them; jft never
        zero_grad=r".*/k_proj/bias|final_logits_bias|.*/embed_positions/.*",
        encoder_decoder=True,
    ),
    "mbart": Row(
        config=BART,
        variants={
            "untied, scaled, longer decoder": (
                "seq2seq_lm",
                {
                    "tie_word_embeddings": False,
                    "scale_embedding": True,
                    "decoder_layers": 3,
                },
            ),
        },
        num_params={
            "mbart-large-cc25": ("base", 610_851_840),
            "mbart-large-50": ("base", 610_879_488),
        },
        dropout={
            "dropout": 0.1,
            "attention_dropout": 0.2,
            "activation_dropout": 0.3,
            "classifier_dropout": 0.4,
        },
        zero_grad=r".*/k_proj/bias|final_logits_bias",
        encoder_decoder=True,
    ),
    "mistral": Row(
        config={
            "vocab_size": 43,
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 16,
            "sliding_window": 3,
            "pad_token_id": 0,
        },
        variants={
            "no window, tied, wide heads, gelu, large eps, rope linear": (
                "causal_lm",
                {
                    "sliding_window": None,
                    "tie_word_embeddings": True,
                    "head_dim": 8,
                    "hidden_act": "gelu",
                    "rms_norm_eps": 0.1,
                    "rope_scaling": {"type": "linear", "factor": 3.0},
                },
            ),
        },
        num_params={
            "Mistral-7B-v0.1": ("causal_lm", 7_241_732_096),
            "Mistral-7B-v0.3": ("causal_lm", 7_248_023_552),
        },
        dropout={"attention_dropout": 0.1, "classifier_dropout": 0.2},
        left_padding=True,
    ),
    "modernbert": Row(
        config={
            "vocab_size": 41,
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "intermediate_size": 40,
            "max_position_embeddings": 16,
            "pad_token_id": 0,
            # by the names of transformers 4
            "global_attn_every_n_layers": 2,
            "global_rope_theta": 50.0,
            "local_rope_theta": 10.0,
            "local_attention": 4,
        },
        variants={
            "every bias, untied, scaled by kind of layer": (
                "masked_lm",
                {
                    "norm_bias": True,
                    "attention_bias": True,
                    "mlp_bias": True,
                    "classifier_bias": True,
                    "tie_word_embeddings": False,
                    "layer_types": ["sliding_attention", "full_attention"],
                    "num_hidden_layers": 2,
                    "max_position_embeddings": 4,
                    "rope_parameters": {
                        "full_attention": {"rope_type": "yarn", "factor": 3.0},
                        "sliding_attention": {
                            "rope_type": "dynamic",
                            "factor": 2.0,
                            "rope_theta": 20.0,
                        },
                    },
                },
            ),
            "mean of tokens, an odd window, large eps, scaled": (
                "sequence_classification",
                {
                    "classifier_pooling": "mean",
                    "local_attention": 3,
                    "norm_eps": 0.1,
                    "hidden_activation": "silu",
                    "classifier_activation": "relu",
                    "rope_scaling": {"rope_type": "linear", "factor": 3.0},
                },
            ),
            "no bias at all": ("masked_lm", {"decoder_bias": False}),
        },
        num_params={
            "ModernBERT-base": ("masked_lm", 149_655_232),
            "ModernBERT-large": ("masked_lm", 395_881_664),
        },
        dropout={
            "embedding_dropout": 0.1,
            "attention_dropout": 0.2,
            "mlp_dropout": 0.3,
            "classifier_dropout": 0.4,
        },
        # where the first token is padding, its id's row has no gradient
        left_padding=True,
    ),
    "phi3": Row(
        config={
            "vocab_size": 43,
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 16,
            "sliding_window": 3,
            "pad_token_id": 0,
        },
        variants={
            "part of each head turns, longrope on a short text, no window, tied": (
                "causal_lm",
                {
                    "num_attention_heads": 3,
                    "num_key_value_heads": None,
                    "partial_rotary_factor": 0.5,
                    "sliding_window": None,
                    "original_max_position_embeddings": 8,
                    "max_position_embeddings": 32,
                    "rope_scaling": {
                        "type": "longrope",
                        "short_factor": [1.5, 2.0],
                        "long_factor": [3.0, 5.0],
                    },
                    "tie_word_embeddings": True,
                },
            ),
            "longrope on a long text, gelu, large eps": (
                "causal_lm",
                {
                    "original_max_position_embeddings": 4,
                    "rope_scaling": {
                        "type": "longrope",
                        "short_factor": [1.0, 1.5, 2.0],
                        "long_factor": [2.0, 3.0, 5.0],
                    },
                    "hidden_act": "gelu",
                    "rms_norm_eps": 0.1,
                },
            ),
        },
        num_params={
            "Phi-3-mini-4k": ("causal_lm", 3_821_079_552),
            "Phi-3-medium-4k": ("causal_lm", 13_960_238_080),
        },
        dropout={
            "attention_dropout": 0.1,
            "resid_pdrop": 0.2,
            "embd_pdrop": 0.3,  # torch has none either
            "classifier_dropout": 0.4,
        },
        left_padding=True,
    ),
    "qwen2": Row(
        config={
            "vocab_size": 43,
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 16,
            "use_sliding_window": True,
            "sliding_window": 3,
            "max_window_layers": 1,
            "pad_token_id": 0,
        },
        variants={
            "no window, tied, ungrouped, gelu, large eps, rope linear": (
                "causal_lm",
                {
                    "use_sliding_window": False,
                    "tie_word_embeddings": True,
                    "num_key_value_heads": None,
                    "hidden_act": "gelu",
                    "rms_norm_eps": 0.1,
                    "rope_scaling": {"type": "linear", "factor": 3.0},
                },
            ),
            "layers by type, no block below the windows": (
                "causal_lm",
                {
                    "sliding_window": 2,
                    "max_window_layers": 0,
                    "layer_types": ["sliding_attention", "full_attention"],
                },
            ),
        },
        num_params={
            "Qwen2.5-0.5B": ("causal_lm", 494_032_768),
            "Qwen2.5-7B": ("causal_lm", 7_615_616_512),
        },
        dropout={"attention_dropout": 0.1, "classifier_dropout": 0.2},
        left_padding=True,
    ),
    "qwen3": Row(
        config={
            "vocab_size": 43,
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 16,
            "pad_token_id": 0,
        },
        variants={
            "blocks slide, biases, tied, ungrouped, gelu, large eps, rope linear": (
                "causal_lm",
                {
                    "use_sliding_window": True,
                    "sliding_window": 3,
                    "max_window_layers": 0,
                    "attention_bias": True,
                    "tie_word_embeddings": True,
                    "num_key_value_heads": None,
                    "hidden_act": "gelu",
                    "rms_norm_eps": 0.1,
                    "rope_scaling": {"type": "linear", "factor": 3.0},
                },
            ),
        },
        num_params={
            "Qwen3-0.6B": ("causal_lm", 596_049_920),
            "Qwen3-8B": ("causal_lm", 8_190_735_360),
        },
        dropout={"attention_dropout": 0.1, "classifier_dropout": 0.2},
        left_padding=True,
    ),
    "roberta": ROBERTA,
    "t5": Row(
        config={
            "vocab_size": 41,
            "d_model": 24,
            "d_kv": 10,
            "d_ff": 40,
            "num_layers": 2,
            "num_heads": 3,
            "relative_attention_num_buckets": 6,
            "relative_attention_max_distance": 5,
            "dropout_rate": 0.0,
            "eos_token_id": 1,
            "pad_token_id": 0,
            "decoder_start_token_id": 0,
        },
        variants={
            "v1.1, large eps": (
                "seq2seq_lm",
                {
                    "tie_word_embeddings": False,
                    "feed_forward_proj": "gated-gelu",
                    "layer_norm_epsilon": 0.1,
                    "num_decoder_layers": 1,
                },
            ),
            "gated silu, many buckets": (
                "question_answering",
                {
                    "feed_forward_proj": "gated-silu",
                    "relative_attention_num_buckets": 32,
                    "relative_attention_max_distance": 128,
                },
            ),
        },
        scales=[(r"(?:transformer\.)?shared\.weight", 2.0)],
        num_params={
            "t5-small": ("seq2seq_lm", 60_506_624),
            "t5-base": ("seq2seq_lm", 222_903_552),
            "flan-t5-base": ("seq2seq_lm", 247_577_856),
            "flan-t5-large": ("seq2seq_lm", 783_150_080),
        },
        dropout={"dropout_rate": 0.1, "classifier_dropout": 0.3},
        encoder_decoder=True,
    ),
    "xlm-roberta": ROBERTA._replace(
        variants={},
        num_params={
            "xlm-roberta-base": ("base", 278_043_648),
            "xlm-roberta-large": ("base", 559_890_432),
        },
    ),
}
