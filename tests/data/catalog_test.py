# SPDX-License-Identifier: Apache-2.0
import pickle

import numpy as np
import pytest
from PIL import Image

from jft.data import SOURCES, load_digits_source, load_source
from jft.types import InputError


@pytest.fixture
def folder(tmp_path):
    for name in ("ant", "cat"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 3), (1, 2, 3)).save(tmp_path / name / "a.png")
    return tmp_path


@pytest.fixture
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    (folder / "a.tsv").write_text("so bad\t0\nso good\t1\n")
    (folder / "a.csv").write_text('text,label\n"so, bad",no\nso good,yes\n')
    return folder


def contract_sources(folder, files):
    return {
        "digits": load_source("digits"),
        "letters": load_source("letters", num_per_class=1, seed=3),
        "folder": load_source("folder", str(folder)),
        "tsv": load_source("tsv", str(files / "a.tsv")),
        "csv": load_source("csv", str(files / "a.csv")),
    }


def test_every_source_keeps_the_contract(folder, files):
    sources = contract_sources(folder, files)
    assert set(sources) == set(SOURCES)
    again = contract_sources(folder, files)
    for name, source in sources.items():
        assert (
            repr(source)
            == repr(again[name])
            == repr(pickle.loads(pickle.dumps(source)))
        )
        assert source.targets.dtype == np.int32
        assert source.targets.shape == (len(source),)
        assert set(source.targets.tolist()) == set(range(len(source.class_names)))
        for index in (0, len(source) - 1):
            example = source[index]
            if "text" in example:
                assert isinstance(example["text"], str)
            else:
                assert example["image"].dtype == np.uint8
                assert example["image"].ndim == 3
            assert example["targets"] == source.targets[index]


def test_digits_are_the_real_ones():
    from sklearn.datasets import load_digits

    real, source = load_digits(), load_digits_source()
    assert len(source) == 1797
    assert source.class_names == tuple("0123456789")
    image = source[5]["image"]
    assert image.shape == (8, 8, 1)
    np.testing.assert_array_equal(np.rint(image[..., 0] * (16 / 255)), real.images[5])
    np.testing.assert_array_equal(source.targets, real.target)


def test_load_source_refuses():
    with pytest.raises(InputError, match=r"'mnist'.*digits.*folder.*letters"):
        load_source("mnist")
    with pytest.raises(InputError, match=r"\['sed'\].*num_per_class.*seed"):
        load_source("letters", sed=1)
    with pytest.raises(InputError, match="reads no files"):
        load_source("digits", "somewhere")
    for name in ("folder", "tsv", "csv"):
        with pytest.raises(InputError, match=f"'{name}' needs a path"):
            load_source(name)
    with pytest.raises(InputError, match=r"delimiter.*one character; got '\|\|'"):
        load_source("csv", "a.csv", delimiter="||")
