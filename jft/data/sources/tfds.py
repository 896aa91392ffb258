# SPDX-License-Identifier: Apache-2.0
"""Data sets that TensorFlow Datasets has prepared, read at random without TensorFlow.

Only the prepared files are read, never the code of a data set. What the library itself
does otherwise (met in 4.9.10): a class id of -1, no label, would give the name of the
last class; an image would be decoded by OpenCV where that is installed and by Pillow
where not, to other pixels; preparing anew writes the same rows as other bytes.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jft.data.sources.chunked import ChunkedColumn
from jft.data.sources.images import read_image
from jft.data.sources.slices import parse_slices, place_of, slice_rows
from jft.data.sources.source import digest
from jft.data.sources.tfds_prepared import import_tfds, open_prepared
from jft.types import InputError

ImageFn = Callable[[bytes, int, int], Any]  # encoded image, its channels, row -> value

_READ_AT_ONCE = 256  # rows, whose images are in memory too
_SAMPLED = 1024  # rows whose content is part of repr


class TfdsSource:
    """Rows of a prepared data set, by position.

    Text is ``str``, a class is its name (None where there is no label), an image uint8
    [h, w, c], a sequence a list, a sequence of dicts a dict of lists; tensors of two
    and more axes stay arrays. Nested values are columns too: ``answers`` is a dict,
    ``answers/text`` a list in it.

    ``repr`` tells data sets apart by name, version, features, sizes and the content of
    1,024 rows spread over the slice, not by where they lie.

    Args:
      name: ``"dataset"``, ``"dataset/config"``, either with ``":version"``, else the
        newest version; or the folder of the prepared files.
      split: as `parse_slices` takes it: ``"train"``, ``"train[:80%]"``, ``"a+b"``.
      data_dir: the folder of all data sets; None is ``$TFDS_DATA_DIR`` or
        ``~/tensorflow_datasets``.
      columns: the columns to read; None reads all. What is left out costs no time.

    Raises:
      InputError: if the package or the prepared files are absent, if they have no
        random access (TFRECORD), or if there is no such split, slice or column.

    Example:
      >>> source = TfdsSource("imdb_reviews", split="train[:80%]")  # doctest: +SKIP
      >>> source[0]["label"], source.where(0, "label")  # doctest: +SKIP
      ('neg', "imdb_reviews/plain_text/1.0.0, train, row 0, column 'label'")

    Source: https://www.tensorflow.org/datasets/data_source
    """

    def __init__(
        self,
        name: str,
        *,
        split: str = "train",
        data_dir: str | Path | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        tfds = import_tfds()
        builder = open_prepared(name, data_dir)
        info = builder.info
        self.name = str(info.full_name)
        sizes = {key: part.num_examples for key, part in info.splits.items()}
        self.slices = parse_slices(split, sizes, name=self.name)
        self._split = "+".join(map(str, self.slices))
        self._paths = _select(_paths(info.features, tfds), columns, self.name)
        self.columns = tuple(self._paths)
        used = sorted({path[0] for path in self._paths.values()})
        self._features = {key: info.features[key] for key in used}
        self._reading = _reading(self._features, tfds)
        self._records = builder.as_data_source(
            self._split,
            deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
            file_format=tfds.core.FileFormat.ARRAY_RECORD,
        )
        self._facts = [
            *(f"{key}: {value!r}" for key, value in self._features.items()),
            *(f"{s.split}: {info.splits[s.split].num_bytes}" for s in self.slices),
        ]

    @property
    def rows(self) -> Mapping[str, np.ndarray]:
        """Which rows of which split these are, for `check_slices`."""
        return slice_rows(self.slices, name=self.name)

    def __len__(self) -> int:
        return sum(part.stop - part.start for part in self.slices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]  # or IndexError
        (row,) = self._read([index], self._reading, self._decode)
        return {name: _get(row, path) for name, path in self._paths.items()}

    def column(self, name: str) -> Sequence[Any]:
        """Return the values of a column; for each image, where it stands."""
        path = self._paths[name]
        reading = _reading({path[0]: self._features[path[0]]}, import_tfds())

        def read(indices: range) -> list[Any]:
            rows = self._read(indices, reading, self._image_name)
            return [_get(row, path) for row in rows]

        return ChunkedColumn(len(self), read)

    def where(self, index: int, column: str) -> str:
        """Say where a value stands; rows are counted from 0 in the whole split."""
        return f"{self._where(index)}, column {column!r}"

    def _where(self, index: int) -> str:
        return place_of(self.slices, index, name=self.name)

    def _read(
        self, indices: Sequence[int], reading: Any, image: ImageFn
    ) -> Iterator[dict[str, Any]]:
        """Yield what the features of ``reading`` hold in rows, as plain Python."""
        for start in range(0, len(indices), _READ_AT_ONCE):
            some = indices[start : start + _READ_AT_ONCE]
            for index, record in zip(some, self._fetch(some), strict=True):
                yield self._row(record, reading, image, index)

    def _fetch(self, indices: Sequence[int]) -> Sequence[bytes]:
        try:
            if len(indices) == 1:  # the other way starts a thread for each call
                return [self._records[indices[0]]]
            return list(self._records.__getitems__(indices))
        except RuntimeError as error:
            raise InputError(
                f"{self._where(indices[0])}{' or after' if indices[1:] else ''} cannot "
                f"be read: {error}. The files are damaged or absent: copy or prepare "
                "the data set again."
            ) from error

    def _row(
        self, record: bytes, reading: Any, image: ImageFn, index: int
    ) -> dict[str, Any]:
        try:
            return {
                key: _plain(value, self._features[key], image, index)
                for key, value in reading.deserialize_example_np(record).items()
            }
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self._where(index)} holds bytes that are no UTF-8 text: {error}. "
                "Read other columns, or prepare the data set with text."
            ) from error

    def _decode(self, encoded: bytes, channels: int, index: int) -> np.ndarray:
        return read_image(encoded, name=self._where(index), channels=channels)

    def _image_name(self, encoded: bytes, channels: int, index: int) -> str:
        return self._where(index)

    @cached_property
    def _digest(self) -> str:
        sampled = np.unique(np.linspace(0, len(self) - 1, _SAMPLED).astype(np.int64))
        rows = self._read(sampled.tolist(), self._reading, lambda data, *_: _hash(data))
        lines = (json.dumps(row, sort_keys=True, default=_hash) for row in rows)
        return digest([*self._facts, *lines])

    def __repr__(self) -> str:
        return (
            f"TfdsSource({self.name}, {self._split}, {len(self)} rows, "
            f"{list(self.columns)}, {self._digest})"
        )


def _paths(
    features: Any, tfds: Any, parents: tuple[str, ...] = ()
) -> dict[str, tuple[str, ...]]:
    """Every column by name, and the keys that lead to it."""
    found: dict[str, tuple[str, ...]] = {}
    for key in sorted(features):
        path = (*parents, key)
        found["/".join(path)] = path
        inner = features[key]
        while isinstance(inner, tfds.features.Sequence):
            inner = inner.feature
        if isinstance(inner, tfds.features.FeaturesDict):
            found |= _paths(inner, tfds, path)
    return found


def _select(
    paths: dict[str, tuple[str, ...]], columns: Sequence[str] | None, name: str
) -> dict[str, tuple[str, ...]]:
    if absent := sorted(set(columns or ()) - set(paths)):
        raise InputError(
            f"{name} has no columns {absent}; it has {list(paths)}. Correct the names."
        )
    return paths if columns is None else {column: paths[column] for column in columns}


def _reading(features: Mapping[str, Any], tfds: Any) -> Any:
    """The features as they are stored: images stay encoded."""
    stored = {key: _stored(key, value, tfds) for key, value in features.items()}
    return tfds.features.FeaturesDict(stored)


def _stored(column: str, feature: Any, tfds: Any) -> Any:
    kinds = tfds.features
    if isinstance(feature, kinds.Dataset) or (
        isinstance(feature, kinds.Image) and feature.np_dtype != np.uint8
    ):
        raise InputError(
            f"the column {column!r} is {feature!r}; of images those of 8 bits can be "
            "read, and no data sets in data sets. Name the other columns in columns."
        )
    if isinstance(feature, kinds.Image):
        return kinds.Text()  # bytes too, passed on as they are
    if isinstance(feature, kinds.Sequence):
        return kinds.Sequence(_stored(column, feature.feature, tfds))
    if isinstance(feature, kinds.FeaturesDict):
        inner = {key: _stored(column, feature[key], tfds) for key in feature}
        return kinds.FeaturesDict(inner)
    return feature


def _plain(value: Any, feature: Any, image: ImageFn, index: int, depth: int = 0) -> Any:
    """Turn a stored value, within ``depth`` sequences, into plain Python."""
    import tensorflow_datasets as tfds

    kinds = tfds.features
    if isinstance(feature, kinds.Sequence):
        return _plain(value, feature.feature, image, index, depth + 1)
    if isinstance(feature, kinds.FeaturesDict):
        return {
            key: _plain(value[key], feature[key], image, index, depth)
            for key in sorted(feature)
        }
    if depth:
        return [_plain(item, feature, image, index, depth - 1) for item in value]
    if isinstance(feature, kinds.Image):
        return image(value, feature.shape[-1], index)
    if isinstance(feature, kinds.ClassLabel):
        return None if value < 0 else feature.int2str(int(value))
    return _python(value)


def _python(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [_python(item) for item in value]
    if isinstance(value, np.ndarray) and (value.ndim < 2 or value.dtype == object):
        return _python(value.tolist())
    return value.item() if isinstance(value, np.generic) else value


def _get(row: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        row = row[key]
    return row


def _hash(value: Any) -> str:
    if isinstance(value, bytes):
        value = np.frombuffer(value, np.uint8)
    return digest([str(value.dtype), str(value.shape), value])
