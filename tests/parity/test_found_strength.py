"""SFR-on that finds its strength against a hand-written loop over the same batches and draws, <= 1e-6 in six steps."""

import copy
import math
from statistics import geometric_mean, mean
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import batches_of, config, random_images, tiny_pipeline, tiny_unet, tiny_vit
from diffusers import DDIMScheduler, DDPMPipeline
from torch.func import functional_call

from hf_unlearn import Classification, NoisePrediction, SFRon, UnlearnTrainer, split_by_index, split_by_label
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.saliency.fisher import fisher

# A larger epsilon keeps Adam from blowing rounding errors of near-zero gradients up to whole steps.
STEPS, EPS, TAKEN = 6, 1e-4, [0, 2, 3, 5, 9]


class Controller:
    """κ of each step, with everything it depends on kept as lists."""

    def __init__(self, floor, above):
        self.floor, self.above, self.gain, self.drift = floor, above, 1.0, 0.0
        self.wholes, self.units, self.lengths, self.negative = [], [], [], 0

    def kappa(self, t, above, whole, unit, slope, d, p):
        self.wholes.append(whole)
        self.units.append(unit)
        start, planned = mean(self.wholes), STEPS / 3
        ratio = above / start
        behind = max(ratio, self.floor / 10) / self.floor ** min(t / planned, 1)
        behind = 1 / ratio if ratio > self.above else behind
        behind = min(behind, 0.25 / self.drift) if self.drift > 0.25 else behind
        self.gain = min(max(self.gain * behind**0.2, 0.05), 10.0)
        want = self.gain * (1 - self.floor ** (1 / planned)) * max(above - start * self.floor / 2, 0)
        found = want / slope if slope > 0 else geometric_mean(self.lengths)
        self.negative += slope <= 0
        usual = geometric_mean(self.lengths) if self.lengths else math.inf
        self.lengths.append(min(found, 2 * usual, 0.02 * p / d))
        return self.lengths[-1] * (0.5 if t == 5 else 1.0)  # it ends at 2/3 of the steps: half of the way down

    def after(self, retain_loss):
        self.drift += (retain_loss / mean(self.units) - self.drift) / 5


def trained(folder, objective, sets, method, **given):
    """After `train`, with the batches that the method was given in `seen`."""
    values = config(folder, max_steps=STEPS, adam_epsilon=EPS, learning_rate=None)
    trainer = UnlearnTrainer(objective, values, method, *sets, **given)
    trainer.seen = batches_of(trainer)
    trainer.train()
    assert trainer.step.strength is not None and trainer.state.global_step == STEPS
    return trainer


def masks_of(objective, sets):
    """{parameter: where it may move} from the Fishers of the original."""
    measured = copy.deepcopy(objective).eval()
    f, r = (fisher(measured, s, forget=g, max_samples=512, seed=42)[0] for s, g in zip(sets, (True, False)))
    return {p: (f[n] > 0) & (f[n] >= r[n]) for n, p in objective.network.named_parameters()}


def by_hand(trainer, network, masks, forget, retain, above=1.0):
    """Six outer steps on `network`: Adam's direction with a learning rate of 0, Polyak's length, retain steps at it.

    forget(batch): (the loss, how far it and the original's are above the end, the latter in the retain loss's unit).
    """
    weights, control = list(network.parameters()), Controller(trainer.step.method.floor, above)
    forget_adam = torch.optim.AdamW(weights, lr=0.0, eps=EPS, weight_decay=0.0)
    retain_adam = torch.optim.AdamW(weights, lr=0.0, eps=EPS, weight_decay=0.0)
    queue = iter(trainer.seen)
    for t in range(STEPS):
        loss, *above = forget(next(queue))
        network.zero_grad()
        loss.backward()
        gradient = [p.grad.clone() * masks[p] for p in weights]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for p in weights:
            p.grad *= masks[p]
        forget_adam.step()
        moments = [forget_adam.state[p] for p in weights]
        direction = [
            (m["exp_avg"] / (1 - 0.9 ** (t + 1))) / ((m["exp_avg_sq"] / (1 - 0.999 ** (t + 1))).sqrt() + EPS)
            for m in moments
        ]
        slope = sum((g * d).sum().item() for g, d in zip(gradient, direction))
        lengths = [math.sqrt(sum(x.square().sum().item() for x in xs)) for xs in (direction, weights)]
        kappa = control.kappa(t, *(float(x) for x in above), slope, *lengths)
        with torch.no_grad():
            for p, d in zip(weights, direction):
                p -= kappa * d
        if trainer.step.method.equal_steps:  # retain steps as long as the forget step
            kappa *= lengths[0] / math.sqrt(sum(p.numel() for p in weights))
        control.rate = kappa
        for group in retain_adam.param_groups:
            group["lr"] = kappa
        for _ in range(2):
            loss = retain(next(queue))
            network.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            retain_adam.step()
        control.after(loss.item())
    assert next(queue, None) is None
    return control


def agree(trainer, network, start, control):
    ours, hand, start = (n.state_dict() for n in (trainer.objective.network, network, start))
    assert max((ours[n] - hand[n]).abs().max().item() for n in ours) <= 1e-6
    assert max((ours[n] - start[n]).abs().max().item() for n in ours) > 1e-3
    strength = trainer.step.strength
    assert strength.gain == pytest.approx(control.gain, rel=1e-4) and strength.gain != 1.0
    assert strength.drift == pytest.approx(control.drift, rel=1e-3) and control.drift > 0
    assert strength.rate == pytest.approx(control.rate, rel=1e-4)


def predict(pipeline, batch, labels=None):
    """(B, C, H, W) noise prediction, written with diffusers' scheduler."""
    noisy = pipeline.scheduler.add_noise(batch["pixel_values"], batch["noise"], batch["timesteps"])
    if labels is None and "drop_labels" in batch:
        labels = torch.where(batch["drop_labels"], 4, batch["labels"])
    return pipeline.unet(noisy, batch["timesteps"], class_labels=labels).sample


def distance(left, right):
    return (left - right).square().mean((1, 2, 3))


def held(pipeline, original):
    """The retain loss of a batch: the distance from what the original predicts."""

    def loss(batch):
        with torch.no_grad():
            target = predict(original, batch)
        return distance(predict(pipeline, batch), target).mean()

    return loss


def relearned(pipeline, batch, rate):
    """The pipeline after Adam's first step on the batch's own loss, whose eps is a hundredth of the gradient's rms."""
    ahead = copy.deepcopy(pipeline.unet)
    loss = distance(predict(SimpleNamespace(unet=ahead, scheduler=pipeline.scheduler), batch), batch["noise"]).mean()
    gradient = torch.autograd.grad(loss, list(ahead.parameters()))
    eps = 0.01 * torch.cat([g.flatten() for g in gradient]).square().mean().sqrt()
    return {n: -rate * g / (g.abs() + eps) for (n, _), g in zip(ahead.named_parameters(), gradient)}


@pytest.mark.parametrize("resist", [0.0, 0.5])
def test_matching_a_denoiser(tmp_path, resist):
    """With `resist_relearning` also where a step of relearning leads: the distance counts both, the latter at most as
    the original's."""
    sets = split_by_label(random_images(), 1)
    method = SFRon(resist_relearning=resist, relearning_rate=5e-4, adversary=False)
    trainer = trained(tmp_path, tiny_pipeline(), sets, method)
    hand, original, anchor = tiny_pipeline(), tiny_pipeline(), trainer.objective.anchors[1]
    gap = trainer.reference.baseline_losses[2]

    def forget(batch):
        with torch.no_grad():
            target = predict(hand, batch, torch.full_like(batch["labels"], anchor))
        unit = gap[batch["timesteps"] // 100]
        loss = (distance(predict(hand, batch, batch["labels"]), target) / unit).mean()
        if not resist:
            return loss, loss.item(), 1.0, unit.mean()
        step = relearned(hand, batch, 5e-4)
        weights = {n: p + step[n].detach() for n, p in hand.unet.named_parameters()}
        noisy = hand.scheduler.add_noise(batch["pixel_values"], batch["noise"], batch["timesteps"])
        given = {"sample": noisy, "timestep": batch["timesteps"], "class_labels": batch["labels"]}
        there = (distance(functional_call(hand.unet, weights, kwargs=given).sample, target) / unit).mean()
        assert abs(there.item() / loss.item() - 1) > 1e-4
        left = (loss.item() + resist * min(there.item(), 1.0)) / (1 + resist)
        return (loss + resist * there) / (1 + resist), left, 1.0, unit.mean()

    control = by_hand(trainer, hand.unet, masks_of(NoisePrediction(hand), sets), forget, held(hand, original))
    agree(trainer, hand.unet, original.unet, control)


def test_matching_a_denoiser_against_an_adversary(tmp_path):
    """Every second sample is met under a shifted embedding too; the shift goes along the sign of its gradient of the
    data's own loss, two shifts take turns, and the samples as they are say how far there is to go."""
    sets = split_by_label(random_images(), 1)
    trainer = trained(tmp_path, tiny_pipeline(), sets, SFRon())
    assert trainer.step.method.adversary is True
    hand, original, anchor = tiny_pipeline(), tiny_pipeline(), trainer.objective.anchors[1]
    gap, table, shifts = trainer.reference.baseline_losses[2], hand.unet.class_embedding, []
    spread = table.weight.detach().std()

    def shifted(batch, shift):
        """The prediction where every second sample's embedding has `shift` added."""
        added = torch.stack([shift * (i % 2) for i in range(len(batch["labels"]))])
        handle = table.register_forward_hook(lambda module, inputs, output: output + added)
        try:
            return predict(hand, batch, batch["labels"])
        finally:
            handle.remove()

    def forget(batch):
        turn = len(shifts)
        with torch.no_grad():
            target = predict(hand, batch, torch.full_like(batch["labels"], anchor))
        if turn < 2:
            generator = trainer.step.draws.generator("profile", 500_000 + turn)
            start = 0.5 * spread * torch.randn(table.embedding_dim, generator=generator)
        else:
            start = shifts[turn - 2]
        shift = start.clone().requires_grad_()
        own = distance(shifted(batch, shift), batch["noise"])[1::2].sum()
        shifts.append(start - 0.25 * spread * torch.autograd.grad(own, shift)[0].sign())
        unit = gap[batch["timesteps"] // 100]
        plain = (distance(predict(hand, batch, batch["labels"]), target) / unit).mean()
        there = (distance(shifted(batch, shifts[-1]), target) / unit)[1::2].mean()
        return (plain + there) / 2, plain.item(), 1.0, unit.mean()

    control = by_hand(trainer, hand.unet, masks_of(NoisePrediction(hand), sets), forget, held(hand, original))
    agree(trainer, hand.unet, original.unet, control)
    kept = trainer.step.adversary.shifts
    assert all(torch.allclose(kept[turn % 2][0], shifts[turn], atol=1e-6) for turn in (STEPS - 2, STEPS - 1))


def test_the_gap_is_the_originals_distance_between_label_and_anchor(tmp_path):
    """By hand over the draws that the original is measured on, in ten equal bins of the schedule."""
    trainer = UnlearnTrainer(
        tiny_pipeline(), config(tmp_path, learning_rate=None), SFRon(), *split_by_label(random_images(), 1)
    )
    batches, pipeline, found = (
        trainer.reference._baseline_batches(trainer.forget_dataset),
        tiny_pipeline(),
        [[] for _ in range(10)],
    )
    trainer.reference.prepare()
    for batch in batches:
        with torch.no_grad():
            named = (predict(pipeline, batch, torch.full_like(batch["labels"], c)) for c in (1, 2))
            for t, value in zip(batch["timesteps"], distance(*named)):
                found[t // 100].append(value.item())
    assert trainer.reference.baseline_losses[2].tolist() == pytest.approx([mean(part) for part in found], rel=1e-5)


def test_bounded_ascent_of_a_model_without_conditions(tmp_path):
    def made():
        return DDPMPipeline(tiny_unet(None), DDIMScheduler(1000))

    sets = split_by_label(random_images(), 1)
    trainer = trained(tmp_path, made(), sets, SFRon())
    hand, original = made(), made()
    table = trainer.reference.baseline_losses[0]

    def forget(batch):
        losses, own = distance(predict(hand, batch), batch["noise"]), table[batch["timesteps"] // 100]
        now, end = losses.detach(), 2 * own
        share = (now < end) / ((now / own).clamp(min=1e-4).sqrt() + 1e-8)
        share = share / share.sum()
        above, whole = ((share * (end - level).clamp(min=0)).sum() for level in (now, own))
        return -(share * losses).sum(), above, whole, own.mean()

    control = by_hand(trainer, hand.unet, masks_of(NoisePrediction(hand), sets), forget, held(hand, original))
    agree(trainer, hand.unet, original.unet, control)


def confident_vit():
    """With logits that differ: of nearly equal ones a divergence is all rounding."""
    model = tiny_vit()
    model.classifier.weight.data *= 10
    return model


def unseen_images():
    generator = torch.Generator().manual_seed(5)
    return ArrayDataset(torch.rand(7, 1, 8, 8, generator=generator) * 2 - 1, torch.arange(7) % 4)


def own_losses(model, data):
    """Cross entropy of each sample."""
    with torch.no_grad():
        logits = model(pixel_values=torch.stack([item["pixel_values"] for item in data])).logits
    return F.cross_entropy(logits, torch.tensor([int(item["labels"]) for item in data]), reduction="none").tolist()


@pytest.mark.parametrize("samples", [False, True], ids=["class", "samples"])
def test_a_classifier_as_if_never_seen(tmp_path, samples):
    images, holdout = random_images(), unseen_images() if samples else None
    sets = split_by_index(images, TAKEN) if samples else split_by_label(images, 1)
    trainer = trained(tmp_path, Classification(confident_vit()), sets, SFRon(), holdout_dataset=holdout)
    assert trainer.step.method.forget_loss == "unseen"
    hand, start = confident_vit().eval(), confident_vit().eval()
    theirs = sorted(own_losses(start, holdout)) if samples else []
    ours = own_losses(start, sets[0])
    order = sorted(range(len(ours)), key=lambda i: ours[i])

    def log_target(row, label, index):
        """log of what the model would say: 1 - p over the other classes as the original has it."""
        others = [c for c in range(4) if c != label]
        total = torch.logsumexp(row[others], 0)
        level = math.inf
        if samples:
            place = int((order.index(index) + 0.5) / len(ours) * len(theirs))
            level = max(theirs[place], ours[index])
        rest = math.log1p(-math.exp(-level))
        return torch.stack(
            [torch.tensor(-min(level, 30.0)) if c == label else row[c] - total + rest for c in range(4)]
        )

    def apart(q, p, labels):
        """KL(q || p) for a class, for samples of classes that stay half the square between the labels' log odds."""
        if not samples:
            return (q.exp() * (q - p)).sum(1)
        odds = []
        for x in (q, p):
            others = x.masked_fill(F.one_hot(labels, 4).bool(), -math.inf)
            odds.append(x.gather(1, labels[:, None])[:, 0] - others.logsumexp(1))
        return (odds[1] - odds[0]).square() / 2

    def forget(batch):
        with torch.no_grad():
            was = start(pixel_values=batch["pixel_values"]).logits.log_softmax(1)
        q = torch.stack([log_target(*x) for x in zip(was, batch["labels"].tolist(), batch["index"].tolist())])
        assert q.exp().sum(1).tolist() == pytest.approx([1.0] * len(q), abs=1e-6)
        now = hand(pixel_values=batch["pixel_values"]).logits.log_softmax(1)
        loss, whole = (apart(q, p, batch["labels"]).mean() for p in (now, was))
        return loss, loss.item(), whole, whole

    def retain(batch):
        with torch.no_grad():
            was = start(pixel_values=batch["pixel_values"]).logits.log_softmax(1)
        now = hand(pixel_values=batch["pixel_values"]).logits.log_softmax(1)
        return apart(was, now, batch["labels"]).mean()

    everything = {p: torch.ones_like(p) for p in hand.parameters()}  # no mask unless one is asked for
    control = by_hand(trainer, hand, everything, forget, retain, above=1.25)
    agree(trainer, hand, start, control)
