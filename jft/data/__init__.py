# SPDX-License-Identifier: Apache-2.0
"""What goes in? Sources, splits, augmentation, fields and the loader."""

from jft.data.augment import AUGMENTATIONS, get_augmentation
from jft.data.cache import cache_folder
from jft.data.catalog import (
    SOURCES,
    load_digits_source,
    load_letters_source,
    load_source,
)
from jft.data.conll import load_conll
from jft.data.delimited import load_delimited
from jft.data.examples import Examples, make_examples
from jft.data.folder import IMAGES, FolderSource, Media
from jft.data.images import IMAGE_SUFFIXES, read_image
from jft.data.jsonl import load_jsonl
from jft.data.kinds import KINDS, Column, Kind
from jft.data.letters import render_letters
from jft.data.lines import LinesSource
from jft.data.loader import (
    EvalBatches,
    FieldsFn,
    TrainLoader,
    make_eval_batches,
    make_train_loader,
)
from jft.data.mapped import FileSource
from jft.data.prefetch import Prefetch, prefetch_to_device
from jft.data.preprocess import ImageFields, make_image_fields
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
from jft.data.targets import target_fields
from jft.data.tokens import TextFields, make_text_fields, trim_padding

__all__ = [
    "AUGMENTATIONS",
    "IMAGES",
    "IMAGE_SUFFIXES",
    "KINDS",
    "SOURCES",
    "ArraySource",
    "Column",
    "ColumnView",
    "EvalBatches",
    "Example",
    "Examples",
    "FieldsFn",
    "FileSource",
    "FolderSource",
    "ImageFields",
    "Kind",
    "LinesSource",
    "Media",
    "Prefetch",
    "SelectedColumns",
    "Source",
    "Subset",
    "TextFields",
    "TrainLoader",
    "cache_folder",
    "check_splits",
    "count_shared",
    "digest",
    "get_augmentation",
    "load_conll",
    "load_delimited",
    "load_digits_source",
    "load_jsonl",
    "load_letters_source",
    "load_source",
    "load_splits",
    "load_squad",
    "make_eval_batches",
    "make_examples",
    "make_image_fields",
    "make_text_fields",
    "make_train_loader",
    "prefetch_to_device",
    "read_image",
    "render_letters",
    "select_columns",
    "split_source",
    "target_fields",
    "trim_padding",
]
