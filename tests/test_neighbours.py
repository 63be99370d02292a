"""Neighbours of what was forgotten: who they are, what is read of them, and where it is shown."""

import pytest
import torch
from conftest import tiny_sd, tiny_sdxl

from hf_unlearn.evaluation.neighbours import (
    NAME,
    nearest_classes,
    nearest_prompts,
    read_by_means,
    retention,
    retention_matrix,
)


@pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl])
def test_the_nearest_prompts_are_those_of_the_largest_cosine(make):
    """By hand: the hidden state at the last token before the end."""
    pipeline, words = make(), ["dog", "a rocket", "boat", "rockets", "dog"]

    def vector(text):
        options = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
        embeds = pipeline.encode_prompt(text, **options)[0][0]
        return embeds[len(pipeline.tokenizer(text).input_ids) - 2]

    own = vector("rocket")
    cosines = {word: torch.cosine_similarity(own, vector(word), dim=0).item() for word in words}
    assert nearest_prompts(pipeline, "rocket", [*words, "Rocket "], 3) == sorted(cosines, key=cosines.get)[::-1][:3]


def test_the_nearest_classes_are_those_that_are_likeliest():
    logits = torch.log(torch.tensor([[0.5, 0.1, 0.3, 0.1], [0.5, 0.05, 0.1, 0.35]]))
    assert nearest_classes(logits, 0, [0, 1, 2, 3], 2) == [3, 2]
    assert nearest_classes(logits, 2, [2, 1], 2) == [1]


def test_pictures_are_read_by_the_nearest_mean_without_their_own_seed():
    """Three things with two seeds each, against a loop by hand; the same noise tells nothing."""
    torch.manual_seed(0)
    known, drawn = torch.randn(3, 2, 4, 2, 2), torch.randn(3, 2, 4, 2, 2)
    for pictures in (known, drawn):
        expected = torch.empty(3, 2, dtype=torch.int64)
        for i in range(3):
            for s in range(2):
                means = [known[j].mean(0) if j != i else known[i, 1 - s] for j in range(3)]
                expected[i, s] = torch.stack([(pictures[i, s] - mean).norm() for mean in means]).argmin()
        assert torch.equal(read_by_means(known, pictures), expected)


def test_the_matrix_counts_each_row():
    read = torch.tensor([[0, 0, 1, -1], [1, 1, 1, 1]])
    assert retention_matrix(read) == [[0.5, 0.25], [0.0, 1.0]]
    found = retention(["a", "b"], torch.tensor([[0, 0], [1, 1]]), torch.tensor([[1, 1], [1, 0]]), "hand")
    assert (found["before"][NAME].value, found["after"][NAME].value) == (1.0, 0.5)
    assert found["after"][NAME].details == {"asked": ["a", "b"], "matrix": [[0.0, 1.0], [0.5, 0.5]]}
