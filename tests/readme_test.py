# SPDX-License-Identifier: Apache-2.0
"""The README's code runs as it stands."""

import re
from pathlib import Path

import jft
from experiments import dataset, run_config
from jft.config import resolve

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
FINETUNE, OWN_IMAGES, OWN_TEXT = re.findall(
    r"^```python\n(.*?)^```$", README, re.M | re.S
)


def test_the_fine_tune_learns_and_leaves_a_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(FINETUNE, "README.md", "exec"), names)
    table = capsys.readouterr().out
    # what is printed before training is what was asked for
    assert "0.2373" in table
    assert "from step 50" in table
    # as the text beside the code says
    assert names["test"].num_examples == 1697
    assert names["test"].scores["accuracy"] > 0.8  # chance is 0.1
    exported = jft.load(tmp_path / "digits_vit")
    assert exported.class_names == tuple("0123456789")
    batch = next(names["batches"])
    expected = names["model"].apply_fn(names["state"].params, batch, key=None)
    assert (exported.apply_fn(exported.params, batch, key=None) == expected).all()


def test_the_code_is_short_and_imports_jft_only():
    lines = [x for x in FINETUNE.splitlines() if x and not x.startswith("#")]
    assert len(lines) <= 42
    assert re.findall(r"^(?:import|from) (\w+)", FINETUNE, re.M) == ["jax", "jft"]


def load_config(code):
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    return run_config.complete(resolve(names["get_config"]()))


def test_the_config_of_your_own_images_is_valid():
    config = load_config(OWN_IMAGES)
    assert config.data.source == "folder"
    assert config.data.path == "photos"
    assert config.optim.unfreeze.method == "top_down"


def test_the_config_of_your_own_text_is_valid(tmp_path, monkeypatch):
    config = load_config(OWN_TEXT)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mails").mkdir()
    rows = "".join(f"{'spam' if i % 2 else 'ham'},{{}} {i}\n" for i in range(20))
    for name in ("train", "test"):
        (tmp_path / "mails" / f"{name}.csv").write_text(
            f"folder,subject\n{rows.format(*[name] * 20)}"
        )
    splits = dataset.load_examples(config)
    assert [len(split) for split in splits.values()] == [18, 2, 20]
    assert splits["test"].class_names == ("ham", "spam")
    assert splits["test"][0]["text"] == "test 0"
