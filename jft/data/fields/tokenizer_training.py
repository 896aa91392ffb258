# SPDX-License-Identifier: Apache-2.0
"""A tokenizer of one's own, for a model that starts from nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jft.data.fields.tokenizer_pieces import learn_pieces
from jft.types import InputError

ROLES = ("pad", "unk", "bos", "eos", "cls", "sep", "mask")

# A turn is <bos>role, a line break, its text and <eos>: ChatML where bos and eos are
# "<|im_start|>" and "<|im_end|>". What the model is to write is marked.
CHATML = (
    "{% for message in messages %}{{ bos_token + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token + 'assistant\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Kind:
    """What a kind of tokenizer has where nothing else is asked for."""

    special_tokens: Mapping[str, str]  # role -> token, in the order of their ids
    around: tuple[str | None, str | None]  # roles of what a text starts and ends with


KINDS: Mapping[str, Kind] = {
    # as BERT
    "wordpiece": Kind(
        {role: f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask")},
        ("cls", "sep"),
    ),
    # as T5 and Marian
    "unigram": Kind({"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}, (None, "eos")),
    # as Llama 2
    "bpe": Kind(
        {"pad": "<pad>", "unk": "<unk>", "bos": "<s>", "eos": "</s>"}, ("bos", None)
    ),
    # as Llama 3; GPT-2 has nothing around a text
    "byte_bpe": Kind({"pad": "<pad>", "bos": "<s>", "eos": "</s>"}, ("bos", None)),
}


def train_tokenizer(
    texts: Iterable[str],
    *,
    kind: str,
    vocab_size: int,
    lowercase: bool = False,
    special_tokens: Mapping[str, str] | None = None,
    around: tuple[str | None, str | None] | None = None,
    chat_template: str | None = None,
    max_length: int | None = None,
) -> Any:
    """Learn a vocabulary from texts; the same texts give the same tokenizer.

    Args:
      texts: read once; their order changes nothing.
      kind: ``"wordpiece"`` (BERT), ``"unigram"`` (T5, Marian), ``"bpe"`` (Llama 2) or
        ``"byte_bpe"`` (GPT-2, Llama 3), which alone can write every text.
      vocab_size: the most tokens, special ones included; few texts give fewer.
      lowercase: whether case is lost; of ``"wordpiece"`` accents are, too.
      special_tokens: role (of ``ROLES``) -> token, in the order of their ids; None
        takes those of ``KINDS``. Two roles may share a token.
      around: the roles of what is put before and behind each text, None for nothing;
        None takes those of ``KINDS``.
      chat_template: Jinja, such as ``CHATML``.
      max_length: of the model, in tokens.

    Returns:
      A ``PreTrainedTokenizerFast`` of transformers, which ``AutoTokenizer`` loads.

    Raises:
      InputError: if there is no text, ``vocab_size`` is below what every text needs, or
        a kind or role is not known or lacks its token.

    Example:
      >>> texts = ["a cat", "a hat"]
      >>> tokenizer = train_tokenizer(texts, kind="wordpiece", vocab_size=30)
      >>> tokenizer.tokenize("a cat")
      ['a', 'c', '##at']
    """
    from transformers import PreTrainedTokenizerFast

    if kind not in KINDS:
        raise InputError(f"kind is {kind!r}; expected one of {sorted(KINDS)}.")
    if isinstance(texts, str):
        raise InputError("texts is one text; give a list of texts, or an iterator.")
    usual = KINDS[kind]
    special = dict(usual.special_tokens if special_tokens is None else special_tokens)
    before, behind = usual.around if around is None else around
    _check_roles(kind, special, before, behind)
    tokens = list(dict.fromkeys(special.values()))
    unk = None if kind == "byte_bpe" else special["unk"]
    backend = learn_pieces(
        kind, texts, vocab_size, tokens, unk=unk, lowercase=lowercase
    )
    ends = (None if role is None else special[role] for role in (before, behind))
    backend.post_processor = _template(backend, kind, *ends)
    names = ["input_ids", "attention_mask"]
    if kind == "wordpiece":
        names.insert(1, "token_type_ids")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_input_names=names,
        clean_up_tokenization_spaces=False,
        **{f"{role}_token": token for role, token in special.items()},
        **({} if max_length is None else {"model_max_length": max_length}),
        **({} if chat_template is None else {"chat_template": chat_template}),
    )


def _check_roles(
    kind: str, special: Mapping[str, str], before: str | None, behind: str | None
) -> None:
    if unknown := sorted(set(special) - set(ROLES)):
        raise InputError(f"special_tokens has {unknown}; expected some of {ROLES}.")
    needed = {role for role in (before, behind) if role is not None}
    if kind != "byte_bpe":
        needed.add("unk")
    if missing := sorted(needed - set(special)):
        raise InputError(
            f"a tokenizer of kind {kind!r} with {(before, behind)} around its texts "
            f"needs tokens for {missing}; special_tokens has {dict(special)}."
        )


def _template(backend: Any, kind: str, before: str | None, behind: str | None) -> Any:
    """Put special tokens before and behind each text, and between two."""
    from tokenizers import processors

    start, end = ([token] if token else [] for token in (before, behind))
    second = ":1" if kind == "wordpiece" else ""
    single = [*start, "$A", *end]
    pair = [*single, f"$B{second}", *(f"{token}{second}" for token in end)]
    around = dict.fromkeys([*start, *end])
    template = processors.TemplateProcessing(
        single=single,
        pair=pair,
        special_tokens=[(token, backend.token_to_id(token)) for token in around],
    )
    if kind != "byte_bpe":
        return template
    # a word's offsets are without the space before it
    trim = processors.ByteLevel(trim_offsets=True, add_prefix_space=False)
    return processors.Sequence([trim, template])
