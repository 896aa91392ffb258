# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of a model folder; no code of the folder is ever run."""

from pathlib import Path
from typing import Any

from jft.types import InputError

# any of these makes a folder one with a tokenizer
FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.txt",
    "vocab.json", "spiece.model", "sentencepiece.bpe.model", "source.spm",
)  # fmt: skip


# Tokens behind the embedding's last row that no text produces: Gemma 3's tokenizer is
# shared with models that see images.
WITHOUT_ROW = frozenset({"<image_soft_token>"})


def load_tokenizer(folder: str | Path) -> Any | None:
    """Load a folder's tokenizer with transformers; None where the folder has none.

    Raises:
      InputError: if it is damaged, needs a package that is absent, or code of its own.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in FILES):
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # transformers and tokenizers raise of all kinds
        raise InputError(
            f"the tokenizer in {folder} cannot be read: {error} Repair its files, or "
            "install the package that it names (the extra `text` has sentencepiece)."
        ) from error


def check_tokenizer_fits(tokenizer: Any, *, vocab_size: int) -> None:
    """Refuse a tokenizer that gives ids which the embedding has no row for.

    Raises:
      InputError: says how to let the embedding grow.
    """
    special = tokenizer.get_added_vocab()
    behind = {token for token, i in special.items() if i >= vocab_size} & WITHOUT_ROW
    if len(tokenizer) - len(behind) > vocab_size:
        raise InputError(
            f"the tokenizer knows {len(tokenizer):,} tokens, but the model's embedding "
            f"has {vocab_size:,} rows (config.json: vocab_size). Use the model's own "
            f"tokenizer, or let the embedding grow with vocab_size={len(tokenizer)}."
        )
