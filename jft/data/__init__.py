# SPDX-License-Identifier: Apache-2.0
"""What goes in? Sources, splits, augmentation, fields and the loader."""

from jft.data.augment import AUGMENTATIONS, AugmentImage, get_augmentation
from jft.data.batching import BATCHINGS, make_token_loader
from jft.data.cache import cache_folder
from jft.data.catalog import (
    SOURCES,
    load_csv_source,
    load_digits_source,
    load_folder_source,
    load_letters_source,
    load_source,
    load_tsv_source,
)
from jft.data.collate import pad_rows
from jft.data.delimited import Table, read_table
from jft.data.eval_batches import EvalBatches, make_eval_batches
from jft.data.folder import IMAGE_SUFFIXES, ImageFolderSource, read_image
from jft.data.lengths import Lengths, choose_lengths
from jft.data.letters import render_letters
from jft.data.loader import TrainLoader, make_train_loader
from jft.data.packing import PackedTable, pack
from jft.data.padding import IGNORED, Pad
from jft.data.prefetch import Prefetch, prefetch_to_device
from jft.data.preprocess import ImageFields, make_image_fields
from jft.data.reading import Augment, FieldsFn
from jft.data.sources import ArraySource, Example, Source
from jft.data.splits import Subset, load_splits, split_source
from jft.data.targets import target_fields
from jft.data.text import TextSource
from jft.data.token_table import TokenTable, tokenize
from jft.data.tokens import TextFields, TextFieldsFn, make_text_fields, trim_padding

__all__ = [
    "AUGMENTATIONS",
    "BATCHINGS",
    "IGNORED",
    "IMAGE_SUFFIXES",
    "SOURCES",
    "ArraySource",
    "Augment",
    "AugmentImage",
    "EvalBatches",
    "Example",
    "FieldsFn",
    "ImageFields",
    "ImageFolderSource",
    "Lengths",
    "PackedTable",
    "Pad",
    "Prefetch",
    "Source",
    "Subset",
    "Table",
    "TextFields",
    "TextFieldsFn",
    "TextSource",
    "TokenTable",
    "TrainLoader",
    "cache_folder",
    "choose_lengths",
    "get_augmentation",
    "load_csv_source",
    "load_digits_source",
    "load_folder_source",
    "load_letters_source",
    "load_source",
    "load_splits",
    "load_tsv_source",
    "make_eval_batches",
    "make_image_fields",
    "make_text_fields",
    "make_token_loader",
    "make_train_loader",
    "pack",
    "pad_rows",
    "prefetch_to_device",
    "read_image",
    "read_table",
    "render_letters",
    "split_source",
    "target_fields",
    "tokenize",
    "trim_padding",
]
