"""Faults of released unlearning code, and pitfalls of the stack, that no other file is the natural place for.

Elsewhere:
- a name looked up in a list of tensors: test_saliency.py, test_masks_that_do_not_fit_are_refused
- a Fisher of clipped gradients, dead weights that count as salient: test_saliency.py
- momentum and weight decay behind a gradient mask: test_optim.py, test_a_gradient_mask_is_not_a_weight_mask
- slow weights without effect: test_optim.py, invariants/ (beta 1 is no wrapper, beta 0.5 differs)
- a forget sample of loss 0 that takes all the weight: test_losses.py
- label dropout in the ascent: test_objectives.py
- tied and channels_last weights: test_storage.py
"""

import pytest
import torch
from conftest import config, tiny_pipeline, tiny_vit
from torch import nn

from hf_unlearn import SFRon, UnlearnTrainer, split_by_label
from hf_unlearn.saliency.masks import Masks
from hf_unlearn.training.optim import FastSlow


def weights(trainer) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in trainer.objective.network.named_parameters()}


@pytest.mark.parametrize("optim", ["separate", "shared"])
@pytest.mark.parametrize("mode", ["update", "gradient"])
def test_a_mask_from_a_file_reaches_the_forget_step(tmp_path, images, optim, mode):
    """One script never applied its mask, `joint` masked gradients and then zeroed them.

    Measured right after the first forget step: every weight outside the mask stays, and those inside move.
    """
    generator = torch.Generator().manual_seed(0)
    start = tiny_pipeline().unet
    masks = Masks({n: torch.rand(p.shape, generator=generator) < 0.5 for n, p in start.named_parameters()})
    masks.save(tmp_path / "m.safetensors")
    method = SFRon(forget_optim=optim, mask_mode=mode)

    moved = []
    sets = split_by_label(images, 1)
    trainer = UnlearnTrainer(
        tiny_pipeline(), config(tmp_path, max_steps=1), method, *sets, masks=str(tmp_path / "m.safetensors")
    )
    fast_step = trainer.step.fast_step

    def watched(*args, **kwargs):
        fast_step(*args, **kwargs)
        moved.append({n: (weights(trainer)[n] - p) for n, p in start.named_parameters()})

    trainer.step.fast_step = watched
    trainer.train()
    inside = torch.cat([moved[0][n][m] for n, m in masks.tensors.items()])
    outside = torch.cat([moved[0][n][~m] for n, m in masks.tensors.items()])
    assert outside.abs().max() == 0
    assert (inside != 0).float().mean() > 0.9


def test_retain_steps_are_not_masked(tmp_path, images):
    masks = {n: torch.zeros_like(p, dtype=torch.bool) for n, p in tiny_pipeline().unet.named_parameters()}
    trainer = UnlearnTrainer(
        tiny_pipeline(),
        config(tmp_path, max_steps=1),
        SFRon(retain_loss="data"),
        *split_by_label(images, 1),
        masks=masks,
    )
    start = weights(trainer)
    trainer.train()
    moved = torch.cat([(v != start[n]).flatten() for n, v in weights(trainer).items()])
    assert moved.float().mean() > 0.9


def test_the_forget_forward_moves_batchnorm_statistics_and_the_merge_takes_them_back():
    """Statistics are buffers: without the merge they keep the forget batch in full."""
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(3)
    optimizer = FastSlow(
        torch.optim.SGD(norm.parameters(), lr=0.0), rate=0.25, buffers=[b for b in norm.buffers() if b.ndim]
    )
    optimizer.begin()
    norm(torch.randn(8, 3) + 5)
    fast = norm.running_mean.clone()
    assert fast.min() > 0.3
    optimizer.merge()
    assert torch.allclose(norm.running_mean, 0.25 * fast) and norm.num_batches_tracked == 1


@pytest.mark.parametrize("model", [tiny_pipeline, tiny_vit])
def test_the_loss_of_forward_is_not_rescaled(tmp_path, images, model):
    """A `**kwargs` in forward would make Trainer take the loss as summed over items and scale it."""
    trainer = UnlearnTrainer(model(), config(tmp_path), SFRon(), *split_by_label(images, 1))
    assert not trainer.model_accepts_loss_kwargs and trainer.loss_is_scaled_for_ga is False


def test_nothing_around_the_network_trains(tmp_path, images):
    """The pipeline is no part of the module: not in train mode, not in the optimizer, not in the checkpoint."""
    pipeline = tiny_pipeline()
    pipeline.other = nn.Linear(2, 2).eval()
    trainer = UnlearnTrainer(pipeline, config(tmp_path, max_steps=1), SFRon(), *split_by_label(images, 1))
    trainer.train()
    assert not pipeline.other.training and pipeline.unet.training
    ours = {id(p) for p in trainer.step.parameters}
    assert ours == {id(p) for p in pipeline.unet.parameters()}


def test_the_log_names_both_losses(tmp_path, images):
    trainer = UnlearnTrainer(tiny_pipeline(), config(tmp_path, logging_steps=1), SFRon(), *split_by_label(images, 1))
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert len(rows) == 4 and all(row["retain_loss"] == pytest.approx(row["loss"], rel=1e-3) for row in rows)
    assert all(0 < row["forget_loss"] < 100 for row in rows)
