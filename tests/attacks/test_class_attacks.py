"""Attacks on class-conditional models against hand-written loops; the models stay as they are."""

from dataclasses import replace

import pytest
import torch
from class_cases import Bands, dit_subject, state, subject, target
from conftest import tiny_dit, tiny_pipeline, tiny_unet
from diffusers import DDIMScheduler, DDPMPipeline
from torch.func import functional_call

from hf_unlearn import ClassConditionalDDPMPipeline, DiTPrediction, NoisePrediction
from hf_unlearn.attacks import ClassEmbedding, ClassGuidance, ClassNull, ClassRelearning
from hf_unlearn.evaluation.generation import SamplingConfig, sample_classes, sample_unconditional
from hf_unlearn.families.label_vectors import replaced_label

SMALL = ClassEmbedding(pictures=4, steps=5, learning_rate=0.2, batch_size=6)


# ---- a vector in the place of a label ------------------------------------------------------------
@pytest.mark.parametrize("make", [lambda: NoisePrediction(tiny_pipeline()), lambda: DiTPrediction(tiny_dit())])
def test_a_replaced_label_is_a_network_with_other_rows(make):
    objective = make()
    network, tables = objective.network.eval(), objective.label_tables
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(t.embedding_dim, generator=generator, requires_grad=True) for t in tables]
    noisy = torch.randn(
        3, objective.network.config.in_channels, *[network.config.sample_size] * 2, generator=generator
    )
    labels, timesteps = torch.tensor([1, 2, 1]), torch.tensor([10, 500, 900])
    with replaced_label(tables, 1, vectors):
        found = objective.denoise(network, noisy, timesteps, labels)
        found.pow(2).sum().backward()
    names = {id(module): name for name, module in network.named_modules()}
    rows = {f"{names[id(t)]}.weight": t.weight.detach().clone() for t in tables}
    for weight, vector in zip(rows.values(), vectors):
        weight[1] = vector.detach()
    changed = tiny_pipeline().unet if isinstance(objective, NoisePrediction) else tiny_dit().transformer
    changed.load_state_dict({**network.state_dict(), **rows})
    expected = objective.denoise(changed.eval(), noisy, timesteps, labels)
    assert torch.allclose(found, expected, atol=1e-6) and len(rows) == len(tables)
    assert all(v.grad is not None and v.grad.abs().sum() > 0 for v in vectors)
    plain = objective.denoise(network, noisy, timesteps, labels)
    assert not torch.allclose(plain, found, atol=1e-3) and torch.allclose(plain[1], found[1], atol=1e-6)


def test_vectors_must_fit_and_the_model_must_have_labels():
    tables = NoisePrediction(tiny_pipeline()).label_tables
    with pytest.raises(ValueError, match="give one for each table"), replaced_label(tables, 0, [torch.zeros(3)]):
        pass
    with pytest.raises(ValueError, match="embeds no labels"), replaced_label([], 0, []):
        pass


# ---- class embedding -----------------------------------------------------------------------------
def test_the_learnt_embedding_is_that_of_a_loop_by_hand():
    from hf_unlearn.attacks.classes import working_copy

    own = subject()
    images = own.target.images[:4]
    (found,), _ = SMALL.learn(working_copy(own), images, 1, seed=3)
    unet, alphas = own.model.unet.eval(), own.model.scheduler.alphas_cumprod
    table = unet.class_embedding.weight.detach()
    vector = table[4].clone().requires_grad_()
    adam, generator = torch.optim.Adam([vector], lr=0.2), torch.Generator().manual_seed(3)
    for _ in range(5):
        x = images[torch.randint(4, (6,), generator=generator)]
        noise = torch.randn(6, 1, 8, 8, generator=generator)
        half = torch.randint(1000, (3,), generator=generator)
        torch.rand(6, generator=generator)  # labels are never dropped, but their draw comes between
        t = torch.cat([half, 999 - half])
        a = alphas[t].view(-1, 1, 1, 1)
        noisy = a.sqrt() * x + (1 - a).sqrt() * noise
        rows = torch.cat([table[:1], vector[None], table[2:]])
        labels = torch.ones(6, dtype=torch.long)
        predicted = functional_call(
            unet, {"class_embedding.weight": rows}, (noisy, t), {"class_labels": labels}
        ).sample
        adam.zero_grad()
        (predicted - noise).pow(2).mean().backward()
        adam.step()
    assert torch.allclose(found, vector, atol=1e-6) and not torch.allclose(found, table[4], atol=0.1)


def test_embedding_images_are_the_stock_pipelines_with_that_row():
    own = subject()
    found = SMALL.attack(own, 3)
    from hf_unlearn.attacks.classes import working_copy

    (vector,), _ = SMALL.learn(working_copy(own), own.target.images[:4], 1, seed=3)
    changed = tiny_pipeline()
    with torch.no_grad():
        changed.unet.class_embedding.weight[1] = vector
    images = sample_classes(changed, [1], replace(own.sampling, samples_per_class=5, seed=3))
    assert found.recovered == own.read(images) and len(found.recovered) == 5


@pytest.mark.parametrize("start", ["null", "mean", "own"])
def test_the_start_is_a_row_of_the_table_or_the_mean_of_the_others(start):
    objective = NoisePrediction(tiny_pipeline())
    table = objective.network.class_embedding.weight
    expected = {"null": table[4], "own": table[1], "mean": table[[0, 2, 3]].mean(0)}[start]
    assert torch.equal(replace(SMALL, start=start).first(objective, 1)[0], expected.detach())


def test_a_model_without_a_null_class_begins_at_the_mean():
    pipeline = ClassConditionalDDPMPipeline(tiny_unet(), DDIMScheduler(1000))
    objective = NoisePrediction(pipeline)
    others = objective.network.class_embedding.weight[[0, 2, 3, 4]].mean(0)
    assert torch.equal(SMALL.first(objective, 1)[0], others.detach())
    assert len(SMALL.attack(subject(pipeline, guidance_scale=1.0), 0).recovered) == 5


@pytest.mark.parametrize("make", [subject, dit_subject])
@pytest.mark.parametrize(
    "attack", [SMALL, ClassGuidance(steps=(4,), other_steps=(4,)), ClassNull(), ClassRelearning(4, max_steps=2)]
)
def test_models_stay_as_they_are_and_seeds_decide(make, attack):
    own = make()
    before, mode = state(own.model), own.model.components.keys()
    first = attack.attack(own, 0)
    assert first == attack.attack(own, 0) and len(first.recovered) == 5
    after = state(own.model)
    assert before.keys() == after.keys() and all(torch.equal(v, after[n]) for n, v in before.items())
    network = getattr(own.model, "unet", None) or own.model.transformer
    assert (
        all(p.requires_grad and p.grad is None for p in network.parameters()) and own.model.components.keys() == mode
    )
    assert not any(m._forward_hooks for m in network.modules())


# ---- other ways to ask, and nothing in particular ------------------------------------------------
def test_each_way_to_ask_is_sampled_as_it_says():
    own = subject(samples=7)
    attack = ClassGuidance(guidance_scales=(1.0, 1.5, 3.0), steps=(3, 6), other_steps=(4,))
    ways = attack.ways(own.model, own, guided=True)
    assert list(ways) == ["guidance 1", "guidance 3", "own sampler, 6 steps", "ddpm, 4 steps"]
    found = attack.attack(own, 2)
    recovered = []
    for count, (scheduler, changes) in zip((2, 2, 2, 1), ways.values()):
        pipeline = ClassConditionalDDPMPipeline(tiny_unet(), scheduler, null_class=4)
        config = replace(own.sampling, samples_per_class=count, seed=2, **changes)
        recovered += own.read(sample_classes(pipeline, [1], config))
    assert found.recovered == tuple(recovered) and set(found.details["shares"]) == set(ways)


def test_a_model_that_cannot_guide_is_asked_without_guidance():
    own = dit_subject()
    ways = ClassGuidance(other_steps=(4,), steps=(4,)).ways(own.model, own, guided=False)
    assert list(ways) == ["own sampler, 4 steps", "ddpm, 4 steps"]
    with pytest.raises(ValueError, match="every way to ask"):
        ClassGuidance((1.0,), (3,), ()).ways(own.model, own, guided=True)


def test_the_null_class_and_its_histogram():
    own = subject(samples=9)
    found = ClassNull().attack(own, 1)
    config = replace(own.sampling, samples_per_class=9, seed=1, guidance_scale=1.0)
    read = Bands()(sample_classes(own.model, [4], config)).argmax(1).tolist()
    assert found.recovered == tuple(c == 1 for c in read)
    assert found.details["histogram"] == {str(c): pytest.approx(read.count(c) / 9) for c in sorted(set(read))}
    with pytest.raises(ValueError, match="no null class"):
        ClassNull().attack(subject(ClassConditionalDDPMPipeline(tiny_unet(), DDIMScheduler(1000))), 0)


def test_an_unconditional_model_is_sampled_as_it_is():
    model = DDPMPipeline(tiny_unet(None), DDIMScheduler(1000))
    own = subject(model, given=target(asked=()), samples=6)
    config = SamplingConfig(num_inference_steps=3, seed=5)
    expected = own.read(sample_unconditional(model, 6, config))
    assert ClassNull().attack(own, 5).recovered == expected
    assert ClassRelearning(pictures=4, share=1.0, max_steps=2, every=1).attack(own, 0).steps in (0, 1, 2)
    with pytest.raises(ValueError, match="no classes, so there is no embedding"):
        SMALL.attack(subject(model), 0)


# ---- relearning ----------------------------------------------------------------------------------
class Count(torch.nn.Module):
    """Reads class 0 until it was asked `after` times, then class 1."""

    def __init__(self, after: int):
        super().__init__()
        self.after, self.asked = after, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        return torch.eye(2)[[int(self.asked > self.after)] * len(images)]


def test_relearning_counts_the_steps_to_the_first_reading_that_suffices():
    attack = ClassRelearning(pictures=4, batch_size=4, every=3, max_steps=10)
    for after, steps, reached in ((0, 0, True), (1, 3, True), (3, 9, True), (4, 10, True), (5, 10, False)):
        found = attack.attack(subject(given=target(network=Count(after))), 0)
        assert (found.steps, found.reached, found.share) == (steps, reached, float(reached))
        assert list(found.details["shares"]) == [str(s) for s in (0, 3, 6, 9, 10) if s <= steps]


def test_relearning_trains_as_a_loop_by_hand():
    """Three steps of AdamW on the noise loss, then the stock sampler."""
    seen = []
    own = subject(given=target(network=lambda images: seen.append(images) or torch.eye(2)[[0] * len(images)]))
    ClassRelearning(4, learning_rate=1e-2, batch_size=6, every=3, max_steps=3).attack(own, 7)
    pipeline = tiny_pipeline()
    unet, alphas, generator = pipeline.unet.eval(), pipeline.scheduler.alphas_cumprod, torch.Generator().manual_seed(7)
    adam = torch.optim.AdamW(unet.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(3):
        x = own.target.images[:4][torch.randint(4, (6,), generator=generator)]
        noise = torch.randn(6, 1, 8, 8, generator=generator)
        half = torch.randint(1000, (3,), generator=generator)
        torch.rand(6, generator=generator)
        t = torch.cat([half, 999 - half])
        a = alphas[t].view(-1, 1, 1, 1)
        predicted = unet(a.sqrt() * x + (1 - a).sqrt() * noise, t, torch.ones(6, dtype=torch.long)).sample
        adam.zero_grad()
        (predicted - noise).pow(2).mean().backward()
        adam.step()
    expected = sample_classes(pipeline, [1], replace(own.sampling, samples_per_class=5, seed=7))
    assert len(seen) == 2 and torch.allclose(seen[-1], expected, atol=1e-5)
    assert not torch.allclose(seen[0], seen[1], atol=1e-2)


# ---- what is refused -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("run", "said"),
    [
        (lambda: SMALL.attack(subject(given=target(asked=(1, 2))), 0), "2 are asked for"),
        (lambda: SMALL.attack(replace(subject(), sampling=None), 0), "SamplingConfig"),
        (lambda: ClassEmbedding(pictures=7).attack(subject(), 0), "takes 7 pictures"),
        (lambda: ClassGuidance().attack(subject(given=target(asked=())), 0), "no class is asked for"),
        (lambda: ClassEmbedding(start="zero"), "not one of null, mean, own"),
        (lambda: ClassEmbedding(steps=0), "steps"),
        (lambda: ClassGuidance((), (), ()), "no way to ask"),
        (lambda: ClassGuidance(steps=(0,)), "above 0"),
        (lambda: ClassRelearning(share=0), "share"),
    ],
)
def test_what_makes_no_sense_is_refused(run, said):
    with pytest.raises(ValueError, match=said):
        run()
