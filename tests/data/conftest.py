# SPDX-License-Identifier: Apache-2.0
"""A data set that TensorFlow Datasets has prepared, made in the test run."""

import sys
from pathlib import Path

import pytest

collect_ignore = ["sources/toy_tfds"]  # no tests, and importable only with the package


@pytest.fixture(scope="session")
def toy_builder_class():
    """The class that prepares ``toy_tfds``."""
    pytest.importorskip("tensorflow_datasets", reason="needs jft[tfds]")
    sys.path.insert(0, str(Path(__file__).parent / "sources"))
    try:
        from toy_tfds.toy_tfds_dataset_builder import Builder
    finally:
        sys.path.pop(0)
    return Builder


@pytest.fixture(scope="session")
def toy_data_dir(toy_builder_class, tmp_path_factory):
    """A folder of data sets with ``toy_tfds`` in it, as ArrayRecord in three files."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    toy_builder_class(data_dir=folder).download_and_prepare(
        file_format="array_record",
        download_config=tfds.download.DownloadConfig(num_shards=3),
    )
    return folder
