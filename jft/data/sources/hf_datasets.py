# SPDX-License-Identifier: Apache-2.0
"""Data sets of the Hugging Face Hub, of ``save_to_disk`` and of the library itself.

Rows are read as Arrow and turned into plain values here: the library's own decoding
would give class ids, images of Pillow that are not turned upright, and would need
further packages for some columns that nobody asked for. Its fingerprint is not used:
saving a data set, or loading it from elsewhere, changes it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jft.data.sources.arrow import digest_tables
from jft.data.sources.chunked import CHUNK, ChunkedColumn
from jft.data.sources.images import read_image
from jft.data.sources.slices import (
    Slice,
    index_ranges,
    parse_slices,
    place_of,
    slice_rows,
)
from jft.types import InputError

ImageFn = Callable[[dict[str, Any], str | None, int], Any]  # stored, mode, row -> value


class HfDatasetSource:
    """Rows of a data set of Hugging Face's ``datasets``, by position.

    A class is its name (None where there is none), also within lists such as
    ``ner_tags``; an image is uint8 [h, w, c], JSON what it says, a list of dicts
    what the data set has: a list of dicts or a dict of lists. Code of a data set is
    never run.

    Args:
      dataset: a ``Dataset`` or ``DatasetDict``; the folder of a ``save_to_disk`` or
        of data files; or a name on the Hub.
      split: as `parse_slices` takes it: ``"train"``, ``"train[:80%]"``, ``"a+b"``. A
        lone ``Dataset`` is its own split, or ``train`` where it names none.
      config: the configuration, where there are several.
      revision: of a data set on the Hub: a commit, branch or tag.
      columns: the columns to read; None reads all. What is left out costs no time.

    Raises:
      InputError: if the package is absent, if the data set cannot be found or reached,
        or if there is no such split, slice or column.

    Example:
      >>> source = HfDatasetSource("imdb", split="train[:80%]")  # doctest: +SKIP
      >>> source[0]["label"], source.where(0, "label")  # doctest: +SKIP
      ('neg', "imdb, train, row 0, column 'label'")

    Source: https://huggingface.co/docs/datasets
    """

    def __init__(
        self,
        dataset: Any,
        *,
        split: str = "train",
        config: str | None = None,
        revision: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        self.name, self._origin = "the data set", ""
        if isinstance(dataset, str | Path):
            self.name, self._origin = _names(dataset, config)
            dataset = _load(dataset, config, revision)
        splits = _splits(dataset)
        sizes = {name: len(part) for name, part in splits.items()}
        self.slices = parse_slices(split, sizes, name=self.name)
        if self._origin:  # with the configuration that is taken where none is named
            names = {part.info.config_name for part in splits.values()} - {None}
            self._origin = "/".join([self._origin, *sorted(names)])
        self._splits = {} if self._origin else splits
        rows = _select(splits, self.slices)
        if absent := sorted(set(columns or ()) - set(rows.column_names)):
            raise InputError(
                f"{self.name} has no columns {absent}; it has {rows.column_names}. "
                "Correct the names."
            )
        self.columns = tuple(rows.column_names if columns is None else columns)
        self._features = {name: rows.features[name] for name in self.columns}
        self._rows = rows.select_columns(list(self.columns)).with_format("arrow")

    @cached_property
    def rows(self) -> Mapping[str, np.ndarray]:
        """Which rows of which split these are, for `check_slices`.

        Of a ``Dataset`` that was given they are rows of its table: those of the parts
        of a ``train_test_split`` are compared, those of tables of their own are not.
        """
        if self._origin:
            return slice_rows(self.slices, name=self._origin)
        found: dict[str, list[np.ndarray]] = {}
        for part in self.slices:
            dataset = self._splits[part.split]
            table, indices = dataset.data.table, dataset._indices
            rows = np.arange(len(dataset)) if indices is None else indices.column(0)
            parts = (table.slice(i, CHUNK) for i in range(0, len(table), CHUNK))
            base = f"a table of {len(table)} rows ({digest_tables(parts)})"
            found.setdefault(base, []).append(np.asarray(rows)[part.start : part.stop])
        return {base: index_ranges(np.concatenate(r)) for base, r in found.items()}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]  # or IndexError
        (row,) = self._rows[index].to_pylist()
        return {
            name: _plain(value, self._features[name], self._decode, index)
            for name, value in row.items()
        }

    def column(self, name: str) -> Sequence[Any]:
        """Return the values of a column; for each image, its name or where it is."""
        feature, rows = self._features[name], self._rows.select_columns([name])

        def read(indices: range) -> list[Any]:
            values = rows[indices][name].to_pylist() if len(indices) else []
            return [
                _plain(value, feature, self._image_name, index)
                for index, value in zip(indices, values, strict=True)
            ]

        return ChunkedColumn(len(self), read)

    def where(self, index: int, column: str) -> str:
        """Say where a value stands; rows are counted from 0 in the whole split."""
        return f"{self._where(index)}, column {column!r}"

    def _where(self, index: int) -> str:
        return place_of(self.slices, index, name=self.name)

    def _decode(self, image: dict[str, Any], mode: str | None, index: int) -> Any:
        file, channels = image["bytes"], {"L": 1, "RGB": 3}.get(mode or "")
        if file is None:
            file = image["path"]
        return read_image(file, name=self._where(index), channels=channels)

    def _image_name(self, image: dict[str, Any], mode: str | None, index: int) -> str:
        return image["path"] or self._where(index)

    def __getstate__(self) -> dict[str, Any]:
        # the tables that were given are only needed for this; rows has its own
        return {**vars(self), "rows": self.rows, "_splits": {}}

    @cached_property
    def _digest(self) -> str:
        tables = (self._rows[i : i + CHUNK] for i in range(0, len(self), CHUNK))
        return digest_tables(tables, [f"{k}: {v}" for k, v in self._features.items()])

    def __repr__(self) -> str:
        return (
            f"HfDatasetSource({len(self)} rows, {list(self.columns)}, {self._digest})"
        )


def _import_datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"Hugging Face's datasets cannot be imported: {error}. Install it with "
            "pip install 'jft[hf]'."
        ) from error
    return datasets


def _names(path: str | Path, config: str | None) -> tuple[str, str]:
    """What to call a data set in messages, and where it comes from."""
    folder = Path(path).expanduser()
    if folder.exists():
        name, origin = folder.absolute().name, str(folder.resolve())
    else:
        name = origin = str(path)
    return (f"{name}/{config}" if config else name), origin


def _load(path: str | Path, config: str | None, revision: str | None) -> Any:
    datasets = _import_datasets()
    folder = Path(path).expanduser()
    if any((folder / mark).is_file() for mark in ("state.json", "dataset_dict.json")):
        if config or revision:
            raise InputError(
                f"{folder} was written by save_to_disk, which keeps one configuration "
                f"and no revision; got {config!r} and {revision!r}. Set both to None."
            )
        return datasets.load_from_disk(str(folder))
    try:
        source = str(folder if folder.exists() else path)
        return datasets.load_dataset(source, config, revision=revision)
    except ConnectionError as error:
        raise InputError(
            f"{path} cannot be had from the Hub: {error}. Check the name and the "
            "network. Where there is none, load it once with one, for it stays in the "
            "cache of datasets, or give the folder of a save_to_disk."
        ) from error
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as e:
        raise InputError(
            f"{path} cannot be loaded: {str(e).rstrip('.')}. Expected a name on the "
            "Hub, or a folder of save_to_disk or of data files; the code of a data set "
            "is never run."
        ) from e


def _splits(dataset: Any) -> dict[str, Any]:
    datasets = _import_datasets()
    if isinstance(dataset, datasets.Dataset):
        return {str(dataset.split or "train"): dataset}
    if isinstance(dataset, datasets.DatasetDict):
        return {str(split): part for split, part in dataset.items()}
    raise InputError(
        f"expected a Dataset, a DatasetDict, a folder or a name; got a "
        f"{type(dataset).__name__}. A stream has no rows by position: load it whole."
    )


def _select(splits: Mapping[str, Any], slices: Sequence[Slice]) -> Any:
    parts = [splits[part.split].select(range(*part[1:])) for part in slices]
    if len(parts) == 1:
        return parts[0]
    return _import_datasets().concatenate_datasets(parts)


def _plain(value: Any, feature: Any, image: ImageFn, index: int) -> Any:
    """Turn a stored value into plain Python."""
    import datasets as kinds

    if value is None:
        return None
    if isinstance(feature, dict):
        return {k: _plain(value[k], feature[k], image, index) for k in feature}
    if isinstance(feature, kinds.List | kinds.LargeList):
        return [_plain(item, feature.feature, image, index) for item in value]
    if isinstance(feature, kinds.ClassLabel):
        return None if value < 0 else feature.names[value]
    if isinstance(feature, kinds.Image) and feature.decode:
        return image(value, feature.mode, index)
    if isinstance(feature, kinds.Json) and feature.decode:
        return json.loads(value)
    if isinstance(feature, kinds.Array2D | kinds.Array3D):
        return np.array(value, feature.dtype)
    return value
