# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of a new tokenizer: which pieces of words become tokens.

Pieces are learned by byte-pair merges: the most frequent pair becomes one piece, again
and again (Sennrich et al. 2016, arXiv 1508.07909). WordPiece and Unigram models get
their pieces so too: the library's own trainers of these give another vocabulary each
time that they run.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jft.types import InputError

WORD_START = "▁"  # stands for the space before a word
PREFIX = "##"  # what WordPiece writes before a piece inside a word
MIN_COUNT = 2  # a pair seen once teaches nothing
ROUNDS = 4  # of counting the pieces of a Unigram model


def learn_pieces(
    kind: str,
    texts: Iterable[str],
    vocab_size: int,
    tokens: Sequence[str],
    *,
    unk: str | None,
    lowercase: bool,
) -> Any:
    """Make a tokenizer of the texts, but for what is put around a text.

    Args:
      kind: a key of ``jft.data.fields.tokenizer_training.KINDS``.
      texts: read once.
      vocab_size: the most tokens.
      tokens: the special ones, in the order of their ids.
      unk: the one that stands for unknown characters; None for bytes.
      lowercase: whether case is lost.

    Returns:
      A ``tokenizers.Tokenizer``.

    Raises:
      InputError: if there is no text, or no room for every character.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE(unk_token=unk))
    normalizer, cutter = _normalizer(kind, lowercase=lowercase), _cutter(kind)
    backend.normalizer, backend.pre_tokenizer = normalizer, cutter
    by_bytes = kind == "byte_bpe"
    # one more for WordPiece, which has no use for WORD_START
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size + (kind == "wordpiece"),
        special_tokens=list(tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if by_bytes else [],
        min_frequency=MIN_COUNT,
        show_progress=False,
    )
    words: Counter[str] = Counter()

    def handed_on() -> Iterator[str]:
        for text in _not_empty(texts):
            if kind == "unigram":
                normal = normalizer.normalize_str(text)
                words.update(word for word, _ in cutter.pre_tokenize_str(normal))
            yield text

    backend.train_from_iterator(handed_on(), trainer)
    learned = backend.get_vocab()
    pieces = sorted(learned, key=learned.__getitem__)
    _finish(backend, kind, pieces, words, vocab_size, tokens, unk)
    return backend


def _not_empty(texts: Iterable[str]) -> Iterator[str]:
    is_empty = True
    for text in texts:
        is_empty = is_empty and not text.strip()
        yield text
    if is_empty:
        raise InputError("there is no text to learn a tokenizer from.")


def _cutter(kind: str) -> Any:
    """What cuts a text into words, which no piece crosses."""
    from tokenizers import pre_tokenizers

    if kind == "byte_bpe":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    marked = pre_tokenizers.Metaspace(replacement=WORD_START)
    if kind == "wordpiece":
        return pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), marked])
    return marked


def _finish(
    backend: Any,
    kind: str,
    pieces: Sequence[str],
    words: Mapping[str, int],
    vocab_size: int,
    tokens: Sequence[str],
    unk: str | None,
) -> None:
    """Turn what was learned into a model of the kind, and say how it is written out."""
    from tokenizers import decoders, models, pre_tokenizers

    if kind == "wordpiece":
        pieces = _as_wordpieces(pieces, tokens)
    _check_size(kind, pieces, vocab_size, tokens)
    backend.decoder = decoders.Metaspace(replacement=WORD_START)
    if kind == "byte_bpe":
        backend.decoder = decoders.ByteLevel()
    if kind == "wordpiece":
        ids = {piece: i for i, piece in enumerate(pieces[:vocab_size])}
        backend.model = models.WordPiece(ids, unk_token=unk)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece(prefix=PREFIX)
    if kind == "unigram":
        backend.model = _as_unigram(pieces, words, tokens, unk)
    backend.add_special_tokens(list(tokens))


def _normalizer(kind: str, *, lowercase: bool) -> Any:
    """What changes a text before it is cut, or None; bytes keep it as it is."""
    from tokenizers import Regex, normalizers

    if kind == "wordpiece":
        return normalizers.BertNormalizer(lowercase=lowercase)
    steps: list[Any] = [normalizers.Lowercase()] if lowercase else []
    if kind == "bpe":
        steps.insert(0, normalizers.NFC())
    if kind == "unigram":  # of white space T5's keep single spaces alone
        single = normalizers.Replace(Regex(r"\s+"), " ")
        steps = [normalizers.NFKC(), *steps, single, normalizers.Strip()]
    return normalizers.Sequence(steps) if steps else None


def _as_wordpieces(pieces: Sequence[str], tokens: Sequence[str]) -> list[str]:
    """Pieces at a word's start lose their mark, those inside get WordPiece's.

    >>> _as_wordpieces(["a", "t", "▁", "▁a", "at"], [])
    ['a', '##a', 't', '##t', '##at']
    """
    found = dict.fromkeys(tokens)
    for piece in pieces[len(tokens) :]:
        if len(piece) == 1 and piece != WORD_START:  # may stand anywhere
            found[piece] = None
        bare = piece.removeprefix(WORD_START)
        if bare:
            found[bare if bare != piece else PREFIX + piece] = None
    return list(found)


def _as_unigram(
    pieces: Sequence[str],
    words: Mapping[str, int],
    tokens: Sequence[str],
    unk: str | None,
) -> Any:
    """Score pieces by how often the best cuts of all words have them.

    The first cuts are those into fewest pieces; each round counts anew. This is the
    hard form of Kudo 2018's estimate, arXiv 1804.10959.
    """
    from tokenizers import models

    scores = dict.fromkeys(pieces, -1.0)
    for _ in range(ROUNDS):
        model = models.Unigram(_scored(scores, tokens), tokens.index(unk), False)
        counts: Counter[str] = Counter()
        for word, count in words.items():
            for token in model.tokenize(word):
                counts[token.value] += count
        total = math.log(max(1, sum(counts.values())))
        scores = {p: math.log(max(counts[p], 0.5)) - total for p in pieces}
    return models.Unigram(_scored(scores, tokens), tokens.index(unk), False)


def _scored(
    scores: Mapping[str, float], tokens: Sequence[str]
) -> list[tuple[str, float]]:
    return [(p, 0.0 if p in tokens else score) for p, score in scores.items()]


def _check_size(
    kind: str, pieces: Sequence[str], vocab_size: int, tokens: Sequence[str]
) -> None:
    """Refuse a vocabulary without room for every character that the texts have."""
    characters = [p for p in pieces[len(tokens) :] if len(p.removeprefix(PREFIX)) == 1]
    needed = len(tokens) + len(characters)
    if needed > vocab_size:
        advice = "" if kind == "byte_bpe" else ", or take kind='byte_bpe'"
        raise InputError(
            f"vocab_size is {vocab_size}, but the {len(tokens)} special tokens and the "
            f"{len(characters)} pieces of one character are {needed}. Raise it{advice}."
        )
