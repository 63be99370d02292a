"""Runs whose results were recorded before the package was rearranged, and the figures that tell one from another."""

import hashlib
import tempfile

import torch
from conftest import config
from families import family_case

from hf_unlearn import CLU, METHODS, SFRon, UnlearnTrainer
from hf_unlearn.data.pairs import subset
from hf_unlearn.saliency.ranks import add_lora, choose_lora

FAMILIES = ("unet", "dit", "sd", "sdxl", "text_encoder", "vit", "resnet")
FOR_FAMILY = {
    "classifier": ("vit", "resnet"),
    "diffusion": ("unet", "dit", "sd", "sdxl", "text_encoder"),
    "text to image": ("sd", "sdxl"),
    "": FAMILIES,
}
NULL_LABELS = ("unet", "dit", "sd", "sdxl", "text_encoder")
VARIANTS = {
    "reference": (lambda: SFRon.from_preset("reference"), {}),
    "paper": (lambda: SFRon.from_preset("paper"), {}),
    "ascent": (lambda: SFRon(forget_loss="ascent", retain_loss="data"), {}),
    "slow": (lambda: SFRon(slow_rate=0.5, mask_mode="gradient"), {}),
    "ema": (lambda: SFRon(slow_form="ema", slow_rate=0.5, forget_optim="shared"), {}),
    "lur_first_order": (lambda: METHODS["lur"](form="first_order", reinit_share=0.0), {}),
    "evaluated": (lambda: SFRon(), {"eval_strategy": "steps", "eval_steps": 1}),
    "lora": (lambda: SFRon(), {}),
    "clu_learns": (lambda: CLU(adversary=False), {"learning_rate": None}),  # recorded before there was one
}


def names() -> list[str]:
    """family/method, and family/variant for the families that cover all kinds."""
    found = [f"{family}/{name}" for name, kind in METHODS.items() for family in FOR_FAMILY[kind.family]]
    found += [f"{family}/{name}" for name in VARIANTS for family in ("unet", "vit", "sd")]
    # Second derivatives of fused attention, and UCE, which needs no steps, stay as their own tests have them.
    return sorted(set(found))


def run(name: str) -> UnlearnTrainer:
    family, what = name.split("/")
    objective, forget, retain = family_case(family)
    make, values = VARIANTS.get(what) or (METHODS[what], {})
    if what == "lora":
        add_lora(objective, choose_lora(objective, forget, retain, rank=2))
    learn = None
    if what == "clu_learns":
        whole, size = retain, len(retain)
        learn, retain = (subset(whole, [i for i in range(size) if (i % 3 == 0) == new]) for new in (True, False))
    args = config(tempfile.mkdtemp(), max_steps=3, per_device_eval_batch_size=64, **values)
    trainer = UnlearnTrainer(objective, args, make(), forget, retain, learn_dataset=learn)
    trainer.train()
    return trainer


def figures(trainer: UnlearnTrainer) -> dict:
    """Projections and samples of the trained weights, the masks as a hash, the ranks, the logged figures."""
    state = {n: p.detach() for n, p in trainer.objective.network.named_parameters() if p.requires_grad}
    flat = torch.cat([state[n].double().flatten() for n in sorted(state)])
    generator = torch.Generator().manual_seed(7)
    projections = (
        torch.stack([flat @ torch.randn(len(flat), dtype=torch.float64, generator=generator) for _ in range(4)])
        / len(flat) ** 0.5
    )
    places = torch.randint(len(flat), (24,), generator=generator)
    found = {"projections": projections.tolist(), "weights": flat[places].tolist(), "count": len(flat)}
    buffers = [b.double().sum() for _, b in sorted(trainer.objective.network.named_buffers()) if b.is_floating_point()]
    found["buffers"] = float(sum(buffers)) if buffers else 0.0
    if trainer.masks is not None:
        tensors = trainer.masks.tensors
        content = b"".join(n.encode() + tensors[n].numpy().tobytes() for n in sorted(tensors))
        found["masks"] = hashlib.sha256(content).hexdigest()
    adapter = trainer.objective.adapter
    if adapter is not None:
        found["ranks"] = {k: v for k, v in sorted(adapter.config.rank_pattern.items())}
    last: dict = {}
    for line in trainer.state.log_history:
        last.update({k: v for k, v in line.items() if k.endswith(("loss", "score", "drift")) and k != "train_loss"})
    found["logged"] = last
    return found
