"""A class-conditional model read under a second sampler, and one line for counts that say too little."""

import pytest
import torch
from conftest import tiny_pipeline, tiny_vit
from diffusers import DDIMScheduler, DDPMScheduler, UniPCMultistepScheduler

from hf_unlearn.cli.runs.sampling import say_few
from hf_unlearn.evaluation import ClassifierJudge, SamplingConfig, compare_pipelines, figures_table
from hf_unlearn.evaluation.metric import is_share, role_of
from hf_unlearn.evaluation.other_sampler import other_scheduler, sampled_otherwise

DRAW = SamplingConfig(samples_per_class=40, num_inference_steps=2, batch_size=20)


def test_the_other_sampler_has_the_same_schedule():
    options = dict(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    for own, name, kind in (
        (DDIMScheduler(200, **options), "ddpm", DDPMScheduler),
        (DDPMScheduler(200, **options), "ddim", DDIMScheduler),
        (UniPCMultistepScheduler(200, **options), "ddim", DDIMScheduler),
    ):
        found, other = other_scheduler(own)
        assert found == name and type(other) is kind and other.config.prediction_type == "v_prediction"
        assert torch.equal(other.alphas_cumprod, own.alphas_cumprod)


def test_counts_names_and_the_pipeline_keeps_its_own():
    pipeline, judge = tiny_pipeline(), ClassifierJudge(tiny_vit(), None)
    own = pipeline.scheduler
    found = sampled_otherwise(pipeline, judge, [1], [0, 1, 2, 3], DRAW)
    assert pipeline.scheduler is own and pipeline.config["scheduler"][1] == "DDIMScheduler"
    assert {name: metric.samples for name, metric in found.items()} == {
        "forget_accuracy_ddpm": 30,
        "retain_accuracy_ddpm": 45,
    }
    assert found["forget_accuracy_ddpm"].details["scheduler"] == "DDPMScheduler"
    assert "as a forgotten class" in found["forget_accuracy_ddpm"].definition
    again = sampled_otherwise(pipeline, judge, [1], [0, 1, 2, 3], DRAW)
    assert {name: metric.value for name, metric in again.items()} == {n: m.value for n, m in found.items()}
    few = sampled_otherwise(pipeline, judge, [1, 2], [0, 1, 2, 3], SamplingConfig(samples_per_class=4))
    assert [metric.samples for metric in few.values()] == [8, 8]
    assert role_of("forget_accuracy_ddpm") == ("forget", True) and role_of("retain_accuracy_ddim") == ("retain", False)
    assert is_share("retain_accuracy_ddim") and not is_share("forget_loss_ddim")


def test_a_model_that_is_broken_under_one_sampler_only_is_seen(tmp_path):
    """The last step decides: at those of DDIM the network gives the other class's image, elsewhere the right one."""

    class Judge:
        num_features = 2

        def features(self, pictures):
            return pictures.flatten(1)[:, :2]

        def __call__(self, pictures):
            bright = pictures.mean((1, 2, 3)) > 0
            return torch.stack([bright, ~bright], dim=1).float()

    pipeline = tiny_pipeline(prediction_type="sample", timestep_spacing="trailing")
    steps = set(own_steps(pipeline))

    class Output:
        def __init__(self, sample):
            self.sample = sample

    def forward(sample, timestep, class_labels=None, **_):
        sign = 1.0 - 2 * (class_labels % 2)
        sign = -sign if int(timestep) in steps else sign
        return Output(sign.view(-1, 1, 1, 1).expand_as(sample).to(sample.dtype))

    pipeline.unet.forward = forward
    real, labels = torch.rand(40, 1, 8, 8) * 2 - 1, torch.arange(40) % 2
    draw = SamplingConfig(samples_per_class=30, guidance_scale=1.0, num_inference_steps=len(steps), batch_size=30)
    found = compare_pipelines(
        {"after": pipeline}, Judge(), [1], real, labels, tmp_path, draw, classes=[0, 1], cross_check=("after",)
    )["after"]
    assert found.retain_accuracy == 0.0
    other = found.metrics()
    assert other["retain_accuracy_ddpm"].value == 1.0 and other["forget_accuracy_ddpm"].value == 1.0
    table = figures_table({"after": found, "retrained": type(found)(0.0, 1.0, 0.0, {0: 1.0, 1: 0.0})}).splitlines()
    assert "retained classes (DDPM)" in table[0] and "100.0% [88.6, 100.0]" in table[2]
    assert table[3].count("–") == 2 and " 0.0% " in table[3]  # no counts, no interval


def own_steps(pipeline) -> list[int]:
    """Three timesteps of the pipeline's own sampler; the last of them is not the last of the other's 25."""
    pipeline.scheduler.set_timesteps(3)
    return [int(t) for t in pipeline.scheduler.timesteps]


@pytest.mark.parametrize(("samples", "said"), [(29, True), (30, False)])
def test_few_samples_are_said(capsys, samples, said):
    say_few(samples, "--eval_samples_per_class")
    text = capsys.readouterr().out
    assert text == (
        "29 forgotten samples are measured, fewer than 30, which say too little: raise --eval_samples_per_class\n"
        * said
    )
