# SPDX-License-Identifier: Apache-2.0
"""What goes in? Sources, splits, augmentation, fields and the loader."""

from jft.data.batches.batching import (
    make_token_loader,
)
from jft.data.batches.eval_batches import EvalBatches, make_eval_batches
from jft.data.batches.joined import join_loaders
from jft.data.batches.lengths import (
    Lengths,
)
from jft.data.batches.loader import TrainLoader, make_train_loader
from jft.data.batches.packing import (
    pack,
    unpack_batch,
)
from jft.data.batches.prefetch import Prefetch, prefetch_to_device
from jft.data.batches.ragged import open_rows
from jft.data.batches.reading import Augment, FieldsFn
from jft.data.batches.row_filler import RowFiller
from jft.data.batches.token_table import TokenTable, tokenize
from jft.data.examples.examples import Examples, make_examples
from jft.data.examples.kinds import KINDS, Column, Kind
from jft.data.examples.split_checks import check_splits, count_shared
from jft.data.examples.split_files import load_splits
from jft.data.examples.splits import Subset, split_source
from jft.data.fields.answers import (
    Answer,
    AnswerFields,
    make_answer_fields,
    read_answers,
)
from jft.data.fields.augment import (
    AUGMENTATIONS,
    get_augmentation,
)
from jft.data.fields.chat import (
    make_chat_fields,
)
from jft.data.fields.language import make_language_fields
from jft.data.fields.masking import (
    make_mask_tokens,
    make_masked_fields,
)
from jft.data.fields.padding import IGNORED, Pad
from jft.data.fields.pairs import few_shot_pairs, make_sentence_pair_fields
from jft.data.fields.preprocess import ImageFields, make_image_fields
from jft.data.fields.seq2seq import make_seq2seq_fields
from jft.data.fields.tagging import TaggingFields, make_tagging_fields, read_tags
from jft.data.fields.tokenizer import load_tokenizer
from jft.data.fields.tokenizer_training import CHATML, train_tokenizer
from jft.data.fields.tokens import (
    TextFields,
    make_text_fields,
)
from jft.data.sources.catalog import (
    PART_OPTIONS,
    SOURCES,
    has_option,
    load_source,
)
from jft.data.sources.folder import (
    IMAGES,
)
from jft.data.sources.images import IMAGE_SUFFIXES, read_image
from jft.data.sources.source import (
    ArraySource,
    Example,
    Source,
    digest,
    select_columns,
)

__all__ = [
    "AUGMENTATIONS",
    "CHATML",
    "IGNORED",
    "IMAGES",
    "IMAGE_SUFFIXES",
    "KINDS",
    "PART_OPTIONS",
    "SOURCES",
    "Answer",
    "AnswerFields",
    "ArraySource",
    "Augment",
    "Column",
    "EvalBatches",
    "Example",
    "Examples",
    "FieldsFn",
    "ImageFields",
    "Kind",
    "Lengths",
    "Pad",
    "Prefetch",
    "RowFiller",
    "Source",
    "Subset",
    "TaggingFields",
    "TextFields",
    "TokenTable",
    "TrainLoader",
    "check_splits",
    "count_shared",
    "digest",
    "few_shot_pairs",
    "get_augmentation",
    "has_option",
    "join_loaders",
    "load_source",
    "load_splits",
    "load_tokenizer",
    "make_answer_fields",
    "make_chat_fields",
    "make_eval_batches",
    "make_examples",
    "make_image_fields",
    "make_language_fields",
    "make_mask_tokens",
    "make_masked_fields",
    "make_sentence_pair_fields",
    "make_seq2seq_fields",
    "make_tagging_fields",
    "make_text_fields",
    "make_token_loader",
    "make_train_loader",
    "open_rows",
    "pack",
    "prefetch_to_device",
    "read_answers",
    "read_image",
    "read_tags",
    "select_columns",
    "split_source",
    "tokenize",
    "train_tokenizer",
    "unpack_batch",
]
