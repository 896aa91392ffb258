# SPDX-License-Identifier: Apache-2.0
import pytest
from huggingface_hub import ModelCard

from jft.export import model_card
from jft.export.card import PIPELINES
from jft.types import InputError


def make_card(**changes):
    return model_card(
        "letters: to digits",
        {"accuracy": 0.9, "f1": 0.875},
        **{
            "pipeline": "image-classification",
            "description": "A small ViT.",
            "dataset": "digits",
            "data_description": "8x8 images.",
            "base_model": "letters_vit",
            "hyperparams": {"learning_rate": 1e-3, "seed": 0},
            "versions": {"jax": "0.10.2"},
            **changes,
        },
    )


def test_hub_reads_the_head():
    data = ModelCard(make_card()).data
    assert data.base_model == "letters_vit"
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "image-classification"
    results = [(r.metric_type, r.metric_value) for r in data.eval_results]
    assert results == [("accuracy", 0.9), ("f1", 0.875)]
    assert {r.dataset_name for r in data.eval_results} == {"digits"}
    assert data.model_name == "letters: to digits"


def test_body_has_transformers_sections_and_the_figures():
    card = make_card()
    sections = [line for line in card.splitlines() if line.startswith("#")]
    assert sections == [
        "# letters: to digits",
        "## Model description",
        "## Intended uses & limitations",
        "## Training and evaluation data",
        "## Training procedure",
        "### Training hyperparameters",
        "### Training results",
        "### Framework versions",
    ]
    for line in ("- learning_rate: 0.001", "| accuracy | 0.9 |", "- jax: 0.10.2"):
        assert line in card.splitlines()


def test_model_from_scratch_has_no_base():
    card = make_card(base_model=None)
    assert ModelCard(card).data.base_model is None
    assert "from scratch" in card


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_card_is_of_its_pipeline(pipeline):
    card = make_card(pipeline=pipeline)
    data = ModelCard(card).data
    assert data.pipeline_tag == pipeline
    assert data.tags == ["jft", pipeline]
    (task,) = {(r.task_type, r.task_name) for r in data.eval_results}
    assert task == (pipeline, pipeline.replace("-", " ").title())
    assert PIPELINES[pipeline] in card
    assert "its training data" in PIPELINES[pipeline].replace("\n", " ")
    assert max(map(len, PIPELINES[pipeline].splitlines())) < 88


def test_every_pipeline_has_its_own_words():
    assert len(set(PIPELINES.values())) == len(PIPELINES)
    for thing in ("image", "text"):
        card = make_card(pipeline=f"{thing}-classification")
        assert f"It sorts {thing}s like those of its training data" in card


def test_an_unknown_pipeline_is_refused():
    with pytest.raises(InputError, match=r"'sorting'.*'image-classification'"):
        make_card(pipeline="sorting")
