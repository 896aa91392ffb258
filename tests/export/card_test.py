# SPDX-License-Identifier: Apache-2.0
"""A model card has what the Hub reads, in words that fit the task."""

import pytest
from huggingface_hub import ModelCard

from jft.export import model_card
from jft.export.card import PIPELINES, USES
from jft.models.classes import ONE_OF_SEVERAL, PROBLEM_TYPES
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


def unwrapped(card):
    return card.replace("\n", " ")


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_card_is_of_its_pipeline(pipeline):
    card = make_card(pipeline=pipeline)
    data = ModelCard(card).data
    assert data.pipeline_tag == pipeline
    assert data.tags == ["jft", pipeline]
    (task,) = {(r.task_type, r.task_name) for r in data.eval_results}
    assert task == (pipeline, pipeline.replace("-", " ").title())
    assert PIPELINES[pipeline] in unwrapped(card)
    thing = pipeline.split("-")[0]
    sorts = f"It sorts {thing}s like those of its training data" in unwrapped(card)
    assert sorts == (pipeline in ("image-classification", "text-classification"))
    is_embedding = pipeline == "sentence-similarity"
    library = "sentence-transformers" if is_embedding else "transformers"
    assert data.library_name == library


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("thing", ["image", "text"])
def test_another_use_has_its_own_words(thing, use):
    card = make_card(pipeline=f"{thing}-classification", use=use)
    assert ModelCard(card).data.pipeline_tag == f"{thing}-classification"
    assert "It sorts" not in card
    assert USES[use].replace("{thing}", thing) in unwrapped(card)


def test_every_kind_of_problem_has_words_of_its_own():
    assert {*PROBLEM_TYPES} - {*USES} == {ONE_OF_SEVERAL}


def test_the_hub_knows_every_word():
    """transformers has or had each but one, which is another library's."""
    from transformers import pipelines

    registry = pipelines.PIPELINE_REGISTRY
    known = {*registry.get_supported_tasks(), *pipelines.REMOVED_TASKS}
    assert {*PIPELINES} - known == {"sentence-similarity"}


def test_an_unknown_pipeline_is_refused():
    with pytest.raises(InputError, match=r"'sorting'.*'image-classification'"):
        make_card(pipeline="sorting")
    with pytest.raises(InputError, match=r"use is 'sorting'.*'regression'"):
        make_card(use="sorting")
