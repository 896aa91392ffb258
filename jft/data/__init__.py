# SPDX-License-Identifier: Apache-2.0
"""What goes in? Sources, splits, augmentation, fields and the loader."""

from jft.data.answers import Answer, AnswerFields, make_answer_fields, read_answers
from jft.data.augment import AUGMENTATIONS, AugmentImage, get_augmentation
from jft.data.batching import BATCHINGS, make_token_loader
from jft.data.cache import cache_folder
from jft.data.catalog import (
    PART_OPTIONS,
    SOURCES,
    has_option,
    load_digits_source,
    load_letters_source,
    load_source,
)
from jft.data.chat import ChatFields, make_chat_fields
from jft.data.collate import pad_rows
from jft.data.conll import load_conll
from jft.data.delimited import load_delimited
from jft.data.eval_batches import EvalBatches, make_eval_batches
from jft.data.examples import Examples, make_examples
from jft.data.folder import IMAGES, FolderSource, Media
from jft.data.hf_datasets import HfDatasetSource
from jft.data.images import IMAGE_SUFFIXES, read_image
from jft.data.jsonl import load_jsonl
from jft.data.kinds import KINDS, Column, Kind
from jft.data.language import make_language_fields
from jft.data.lengths import Lengths, choose_lengths
from jft.data.letters import render_letters
from jft.data.lines import LinesSource
from jft.data.loader import TrainLoader, make_train_loader
from jft.data.mapped import FileSource
from jft.data.masking import MaskTokens, make_mask_tokens, make_masked_fields
from jft.data.packing import PackedTable, pack
from jft.data.padding import IGNORED, Pad
from jft.data.pairs import few_shot_pairs, make_sentence_pair_fields
from jft.data.parquet import ParquetSource
from jft.data.prefetch import Prefetch, prefetch_to_device
from jft.data.preprocess import ImageFields, make_image_fields
from jft.data.reading import Augment, FieldsFn
from jft.data.seq2seq import make_seq2seq_fields
from jft.data.sources import (
    ArraySource,
    ColumnView,
    Example,
    SelectedColumns,
    Source,
    digest,
    select_columns,
)
from jft.data.split_checks import check_splits, count_shared
from jft.data.split_files import load_splits
from jft.data.splits import Subset, split_source
from jft.data.squad import load_squad
from jft.data.tagging import TaggingFields, make_tagging_fields, read_tags
from jft.data.targets import target_fields
from jft.data.tfds import TfdsSource
from jft.data.token_table import TokenTable, tokenize
from jft.data.tokenizer import load_tokenizer
from jft.data.tokens import TextFields, TextFieldsFn, make_text_fields, trim_padding

__all__ = [
    "AUGMENTATIONS",
    "BATCHINGS",
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
    "AugmentImage",
    "ChatFields",
    "Column",
    "ColumnView",
    "EvalBatches",
    "Example",
    "Examples",
    "FieldsFn",
    "FileSource",
    "FolderSource",
    "HfDatasetSource",
    "ImageFields",
    "Kind",
    "Lengths",
    "LinesSource",
    "MaskTokens",
    "Media",
    "PackedTable",
    "Pad",
    "ParquetSource",
    "Prefetch",
    "SelectedColumns",
    "Source",
    "Subset",
    "TaggingFields",
    "TextFields",
    "TextFieldsFn",
    "TfdsSource",
    "TokenTable",
    "TrainLoader",
    "cache_folder",
    "check_splits",
    "choose_lengths",
    "count_shared",
    "digest",
    "few_shot_pairs",
    "get_augmentation",
    "has_option",
    "load_conll",
    "load_delimited",
    "load_digits_source",
    "load_jsonl",
    "load_letters_source",
    "load_source",
    "load_splits",
    "load_squad",
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
    "pack",
    "pad_rows",
    "prefetch_to_device",
    "read_answers",
    "read_image",
    "read_tags",
    "render_letters",
    "select_columns",
    "split_source",
    "target_fields",
    "tokenize",
    "trim_padding",
]
