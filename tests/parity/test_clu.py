"""CLU on tiny models against hand-written loops over the same batches, <= 1e-6 after four outer steps."""

import copy
import math

import pytest
import torch
from conftest import batches_of, config, random_images, tiny_pipeline, tiny_vit
from torch.nn import functional as F

from hf_unlearn import CLU, Classification, FineTune, NoisePrediction, UnlearnTrainer
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.data.pairs import subset
from hf_unlearn.saliency.fisher import fisher
from hf_unlearn.training.strength import strengths_of

LR, STEPS, EPS = 1e-3, 4, 1e-4
FORGET, LEARN = [1, 5, 9, 13, 17], [2, 3, 10, 11]


def parts(forget=True):
    """(forget, retain, learn) of 20 random images of four classes."""
    images = random_images()
    rest = [i for i in range(20) if i not in FORGET + LEARN]
    return subset(images, FORGET) if forget else None, subset(images, rest), subset(images, LEARN)


def trained(folder, objective, method, sets, rate=LR):
    """After `train`, with every batch that the method was given, in the order in which they are drawn."""
    values = config(folder, max_steps=STEPS, adam_epsilon=EPS, learning_rate=rate)
    trainer = UnlearnTrainer(objective, values, method, *sets[:2], learn_dataset=sets[2])
    trainer.seen = batches_of(trainer)
    trainer.train()
    return trainer


def agree(trainer, hand, start):
    ours, theirs, start = (n.state_dict() for n in (trainer.objective.network, hand, start))
    assert max((ours[n] - theirs[n]).abs().max().item() for n in ours) <= 1e-6
    assert max((ours[n] - start[n]).abs().max().item() for n in ours) > 1e-3


def adam(weights, rate=LR):
    return torch.optim.AdamW(weights, lr=rate, eps=EPS, weight_decay=0.0)


def step(optimizer, loss, weights, masks=None, norm=1.0):
    for p in weights:
        p.grad = None
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, norm)
    for p in weights if masks is not None else ():
        p.grad *= masks[p]
    optimizer.step()


def masks_by_hand(objective, network, sets):
    """{parameter: S}: F_forget + s F_learn >= F_retain, s the ratio of the sums of F_retain and F_learn."""
    flags = (True, False, True)  # labels of retained samples alone are dropped
    forget, retain, learn = (
        None if s is None else fisher(objective, s, forget=flag, seed=42)[0] for s, flag in zip(sets, flags)
    )
    share = sum(f.double().sum() for f in retain.values()) / sum(f.double().sum() for f in learn.values())
    changed = {name: share.item() * f + (0 if forget is None else forget[name]) for name, f in learn.items()}
    least = 1e-12 * max(f.max() for f in changed.values())
    named = network.named_parameters()
    return {p: (changed[name] > least) & (changed[name] >= retain[name]) for name, p in named}


def ce(model, batch):
    return F.cross_entropy(model(pixel_values=batch["pixel_values"]).logits, batch["labels"], reduction="none")


def kl(model, teacher, batch):
    p, q = (m(pixel_values=batch["pixel_values"]).logits.log_softmax(1) for m in (teacher, model))
    return (p.exp() * (p - q)).sum(1).mean()


@pytest.mark.parametrize("weight", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("forgets", [True, False])
def test_of_a_classifier_at_a_rate(tmp_path, forgets, weight):
    """Bounded ascent and descent by adaptive weights, three Adams, one mask, repair of retained and learnt."""
    sets = parts(forgets)
    method = CLU(retain_steps=2, repair_weight=weight, learn_learning_rate=2e-3)
    trainer = trained(tmp_path, Classification(tiny_vit()), method, sets)
    model, start = (tiny_vit().train() if forgets else tiny_vit().eval()), tiny_vit().eval()
    weights = list(model.parameters())
    masks = masks_by_hand(Classification(tiny_vit()), model, sets)
    learn_adam, forget_adam, repair_adam = adam(weights, 2e-3), adam(weights), adam(weights)
    own = None if trainer.reference.baseline_losses is None else trainer.reference.baseline_losses[0].item()
    queue = iter(trainer.seen)
    for t in range(STEPS):
        f = next(queue) if forgets else None
        learn = [next(queue) for _ in range(3 if weight else 1)]
        retain = [next(queue) for _ in range(2)]
        losses = ce(model, learn[0])
        shares = losses.detach().sqrt() / losses.detach().sqrt().sum()
        step(learn_adam, (shares * losses).sum(), weights, masks)
        if forgets:
            losses = ce(model, f)
            w = 1 / ((losses.detach() / own).clamp(min=1e-4).sqrt() + 1e-8) * (losses < math.log(4))
            for group in forget_adam.param_groups:
                group["lr"] = LR * 2 * (1 + math.cos(math.pi * t / STEPS)) / 2
            step(forget_adam, -(w / w.sum().clamp(min=1e-30) * losses).sum(), weights, masks)
        for k, r in enumerate(retain):
            more = weight * ce(model, learn[k + 1]).mean() if weight else 0.0
            step(repair_adam, kl(model, start, r) + more, weights)
    assert next(queue, None) is None
    agree(trainer, model, tiny_vit())


def test_of_a_denoiser_that_finds_its_strength_and_forgets_nothing(tmp_path):
    """Polyak's length to the loss of retained samples, by the controller of the forget steps; the rate is kept."""
    forget, retain, learn = parts(forget=False)
    loud = ArrayDataset(torch.stack([4 * learn[i]["pixel_values"] for i in range(4)]), torch.tensor([2, 3, 2, 3]))
    sets = forget, retain, loud
    known = NoisePrediction(tiny_pipeline())  # once it knows the retained ones, it loses more on others
    values = config(tmp_path, max_steps=30, learning_rate=1e-2)
    UnlearnTrainer(known, values, FineTune(), None, retain).train()
    objective, measured = copy.deepcopy(known), copy.deepcopy(known).eval()
    trainer = trained(tmp_path, objective, CLU(retain_steps=1), sets, rate=None)
    network, start = (copy.deepcopy(known.network).eval() for _ in range(2))
    masks, weights = masks_by_hand(measured, network, sets), list(network.parameters())
    control = strengths_of(trainer.step.method)["learn"]
    assert (control.plan.floor, control.plan.drift, control.plan.holds_rate) == (0.05, 0.05, True)
    levels = [table[0] for table in trainer.reference.level_tables]  # by timestep, of retained and of learn samples
    learn_adam, repair_adam = adam(weights, 0.0), adam(weights, 0.0)
    queue, scheduler = iter(trainer.seen), tiny_pipeline().scheduler

    def predict(net, batch):
        noisy = scheduler.add_noise(batch["pixel_values"], batch["noise"], batch["timesteps"])
        labels = torch.where(batch["drop_labels"], 4, batch["labels"])
        return net(noisy, batch["timesteps"], class_labels=labels).sample

    def error(batch):
        return (predict(network, batch) - batch["noise"]).square().mean((1, 2, 3))

    peak = 0.0
    for t in range(STEPS):
        learn, again, retain = (next(queue) for _ in range(3))
        assert not learn["drop_labels"].any()
        end, begin = (table[learn["timesteps"] * 10 // 1000] for table in levels)
        loss = error(learn).mean()
        way = torch.maximum(begin - end, 0.05 * end).mean().item()
        control.begin(t, STEPS)
        control.measure(loss.item() - end.mean().item(), way, way)
        for p in weights:
            p.grad = None
        loss.backward()
        gradient = [p.grad.clone() * masks[p] for p in weights]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for p in weights:
            p.grad *= masks[p]
        learn_adam.step()
        state = [learn_adam.state[p] for p in weights]
        first, second = 1 - 0.9 ** (t + 1), 1 - 0.999 ** (t + 1)
        d = [s["exp_avg"] / first / ((s["exp_avg_sq"] / second).sqrt() + EPS) for s in state]
        slope = sum((g * x).sum().item() for g, x in zip(gradient, d))
        sizes = [math.sqrt(sum(x.square().sum().item() for x in xs)) for xs in (d, weights)]
        kappa = control.length(slope, *sizes)
        with torch.no_grad():
            for p, x in zip(weights, d):
                p -= kappa * x
        peak = max(peak, kappa / control._fade)
        for group in repair_adam.param_groups:
            group["lr"] = peak * control._fade
        with torch.no_grad():
            target = predict(start, retain)
        kept = (predict(network, retain) - target).square().mean((1, 2, 3)).mean()
        step(repair_adam, kept + error(again).mean(), weights)
        control.measure_retain(kept.item())
    assert next(queue, None) is None and control.gain != 1.0
    agree(trainer, network, start)


def test_fine_tuning_learns_beside_its_replay(tmp_path):
    sets = parts(forget=False)
    trainer = trained(tmp_path, Classification(tiny_vit()), FineTune(), sets)
    model = tiny_vit().train()
    weights, queue = list(model.parameters()), iter(trainer.seen)
    optimizer = adam(weights)
    for _ in range(STEPS):
        learn, retain = next(queue), next(queue)
        step(optimizer, ce(model, retain).mean() + ce(model, learn).mean(), weights)
    agree(trainer, model, tiny_vit())
