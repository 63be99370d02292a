import pytest
import torch
from conftest import tiny_unet
from safetensors.torch import save_file

from hf_unlearn import NoisePrediction
from hf_unlearn.data import collate
from hf_unlearn.saliency import Masks, density_masks, fisher, load_masks, ratio_masks


def handmade(objective, images, groups: list[list[int]], per_sample: bool) -> dict[str, torch.Tensor]:
    """Mean of squared gradients over samples, or over batches, with plain autograd."""
    named = dict(objective.network.named_parameters())
    total = {n: torch.zeros_like(p) for n, p in named.items()}
    count = 0
    objective.eval()
    for number, group in enumerate(groups):
        batch = collate([images[i] for i in group])
        draws = objective.draw(batch, torch.Generator().manual_seed(number))
        batch.update(objective.forget_draw(draws))
        pieces = [{k: v[i : i + 1] for k, v in batch.items()} for i in range(len(group))] if per_sample else [batch]
        for piece in pieces:
            gradients = torch.autograd.grad(objective(**piece).mean(), list(named.values()))
            count += 1
            for n, g in zip(named, gradients):
                total[n] += g**2
    return {n: t / count for n, t in total.items()}


@pytest.mark.parametrize("estimator", ["sample", "batch"])
def test_fisher_is_the_stated_mean_of_squares(pipeline, images, estimator):
    objective = NoisePrediction(pipeline)
    ours, metadata = fisher(objective, images, forget=True, estimator=estimator, max_samples=8, batch_size=3)
    positions = [i * 20 // 8 for i in range(8)]
    groups = [positions[:3], positions[3:6], positions[6:]]
    expected = handmade(objective, images, groups, estimator == "sample")
    for name, value in ours.items():
        assert torch.allclose(value, expected[name], rtol=1e-4, atol=1e-9), name
    assert metadata["estimator"] == estimator and metadata["samples"] == "8"


def test_the_two_estimators_differ_and_the_batch_one_depends_on_the_batch_size(pipeline, images):
    objective = NoisePrediction(pipeline)
    total = {
        (estimator, size): sum(
            f.sum().item()
            for f in fisher(objective, images, True, estimator, max_samples=16, batch_size=size)[0].values()
        )
        for estimator, size in (("sample", 4), ("batch", 4), ("batch", 16))
    }
    assert total["batch", 16] < 0.9 * total["batch", 4] < 0.9 * 0.9 * total["sample", 4] / 0.9


def test_fisher_is_not_clipped(pipeline, images):
    """Released DDPM code squares clipped gradients, so that only relative sizes are left."""

    class Louder(NoisePrediction):
        def forward(self, pixel_values, noise, timesteps, labels=None, drop_labels=None, anchor_labels=None):
            return 100 * super().forward(pixel_values, noise, timesteps, labels, drop_labels, anchor_labels)

    quiet = fisher(NoisePrediction(pipeline), images, True, max_samples=4)[0]
    loud = fisher(Louder(pipeline), images, True, max_samples=4)[0]
    name = "conv_in.weight"
    assert torch.allclose(loud[name], 1e4 * quiet[name], rtol=1e-3)


def test_fisher_leaves_mode_and_gradients_alone(pipeline, images):
    objective = NoisePrediction(pipeline).train()
    fisher(objective, images, True, max_samples=4)
    assert objective.training and all(p.grad is None for p in objective.parameters())


INFO = {"estimator": "sample"}


def test_dead_weights_are_not_salient():
    """Released code adds 1e-15 to both Fishers, so that 0/0 passes gamma = 1."""
    forget, retain = {"w": torch.tensor([0.0, 1.0, 1.0, 3.0])}, {"w": torch.tensor([0.0, 0.0, 2.0, 2.0])}
    assert ratio_masks((forget, INFO), (retain, INFO), gamma=1.0).tensors["w"].tolist() == [False, True, False, True]
    assert ratio_masks((forget, INFO), (retain, INFO), gamma=0.5).tensors["w"].tolist() == [False, True, True, True]
    assert not density_masks((forget, INFO), (retain, INFO), 1.0).tensors["w"][0]


def test_density_masks_take_the_largest_ratios():
    forget = {"a": torch.arange(1.0, 11.0), "b": torch.arange(11.0, 21.0)}
    retain = {name: torch.ones(10) for name in forget}
    masks = density_masks((forget, INFO), (retain, INFO), 0.25)
    assert masks.density == 0.25
    assert masks.tensors["b"].tolist() == [False] * 5 + [True] * 5 and not masks.tensors["a"].any()
    assert masks.table() == [("a", 10, 0.0), ("b", 10, 0.5)]


def some_masks(network) -> Masks:
    generator = torch.Generator().manual_seed(0)
    tensors = {n: torch.rand(p.shape, generator=generator) < 0.3 for n, p in network.named_parameters()}
    return Masks(tensors, {"gamma": "1.0"})


def test_save_and_load_keep_tensors_and_metadata(tmp_path):
    network = tiny_unet()
    masks = some_masks(network)
    masks.save(tmp_path / "m.safetensors")
    loaded = load_masks(tmp_path / "m.safetensors", network)
    assert loaded.metadata == {"gamma": "1.0"} and loaded.tensors.keys() == masks.tensors.keys()
    assert all(torch.equal(loaded.tensors[n], m) for n, m in masks.tensors.items())
    assert (tmp_path / "m.safetensors").stat().st_size < 1.5 * sum(m.numel() for m in masks.tensors.values())


def test_masks_that_do_not_fit_are_refused(tmp_path):
    """A released script looked names up in a list of tensors: the mask matched nothing and was never applied."""
    network = tiny_unet()
    tensors = some_masks(network).tensors
    first = next(iter(tensors))
    prefixed = Masks({f"module.{n}": m for n, m in tensors.items()})
    for wrong, message in (
        (prefixed, "do not belong"),
        (Masks({n: m for n, m in tensors.items() if n != first}), "1 parameters without a mask"),
        (Masks({**tensors, first: tensors[first][:1]}), "has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong.aligned(network)
    save_file({n: m.float() for n, m in tensors.items()}, tmp_path / "floats.safetensors")
    (tmp_path / "text.safetensors").write_text("no")
    for name, message in (("floats", "no weight masks"), ("text", "not a readable"), ("absent", "not a readable")):
        with pytest.raises(ValueError, match=message):
            load_masks(tmp_path / f"{name}.safetensors", network)
