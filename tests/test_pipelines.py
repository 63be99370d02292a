import subprocess
import sys

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from safetensors.torch import load_file

from hf_unlearn import ClassConditionalDDPMPipeline, load_ddpm_pipeline


def by_hand(pipeline, labels, scale, steps, seed):
    """Classifier-free guidance over DDIM, written out."""
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(steps)
    x = torch.randn(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for t in scheduler.timesteps:
            conditional = pipeline.unet(x, t, class_labels=labels).sample
            null = pipeline.unet(x, t, class_labels=torch.full_like(labels, 4)).sample
            x = scheduler.step(null + scale * (conditional - null), t, x).prev_sample
    return (x / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("scale", [1.0, 1.5, 3.0])
def test_guidance_is_the_stated_formula(pipeline, scale):
    labels = torch.tensor([0, 1, 3])
    pipeline.set_progress_bar_config(disable=True)
    arguments = dict(guidance_scale=scale, num_inference_steps=4, output_type="pt")
    ours = pipeline(labels, generator=torch.Generator().manual_seed(7), **arguments).images
    assert torch.allclose(ours, by_hand(pipeline, labels, scale, 4, 7), atol=1e-5)


def test_outputs_generator_and_progress_bar(pipeline, capfd):
    draw = [pipeline([2, 3], num_inference_steps=2, generator=torch.manual_seed(s)).images for s in (1, 1, 2)]
    assert list(draw[0][0].getdata()) == list(draw[1][0].getdata()) != list(draw[2][0].getdata())
    assert len(draw[0]) == 2 and draw[0][0].size == (8, 8)
    assert "2/2" in capfd.readouterr().err
    array = pipeline(1, num_inference_steps=2, output_type="np", return_dict=False)[0]
    assert array.shape == (1, 8, 8, 1)


def test_ddpm_scheduler_takes_the_generator(pipeline):
    pipeline.scheduler = DDPMScheduler(1000)
    images = [
        pipeline(0, num_inference_steps=3, generator=torch.manual_seed(3), output_type="pt").images for _ in range(2)
    ]
    assert torch.equal(*images)


def test_bad_calls_are_named(pipeline, unconditional):
    with pytest.raises(ValueError, match=r"0\.\.4, got 5\.\.5"):
        pipeline(5)
    without = ClassConditionalDDPMPipeline(pipeline.unet, pipeline.scheduler)
    with pytest.raises(ValueError, match="guidance_scale=1"):
        without(0, guidance_scale=1.5)
    assert len(without(0, guidance_scale=1, num_inference_steps=1).images) == 1
    with pytest.raises(ValueError, match="DDPMPipeline"):
        ClassConditionalDDPMPipeline(unconditional.unet, unconditional.scheduler)


def test_saved_folder_reloads_whole_and_in_plain_diffusers(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "p")
    again = load_ddpm_pipeline(str(tmp_path / "p"))
    assert again.null_class == 4
    images = [p([0, 1], num_inference_steps=2, generator=torch.manual_seed(0)).images for p in (pipeline, again)]
    assert [list(i.getdata()) for i in images[0]] == [list(i.getdata()) for i in images[1]]
    code = f"""
import sys, torch
from diffusers import DDIMScheduler, UNet2DModel
from safetensors.torch import save_file
unet = UNet2DModel.from_pretrained({str(tmp_path / "p")!r}, subfolder="unet").eval()
DDIMScheduler.from_pretrained({str(tmp_path / "p")!r}, subfolder="scheduler")
with torch.no_grad():
    out = unet(torch.ones(1, 1, 8, 8), 10, class_labels=torch.tensor([1])).sample
save_file({{"out": out}}, {str(tmp_path / "out.safetensors")!r})
assert "hf_unlearn" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    with torch.no_grad():
        ours = pipeline.unet.eval()(torch.ones(1, 1, 8, 8), 10, class_labels=torch.tensor([1])).sample
    assert torch.allclose(load_file(tmp_path / "out.safetensors")["out"], ours, atol=1e-6)


def test_load_picks_the_class_and_refuses_others(unconditional, tmp_path):
    unconditional.save_pretrained(tmp_path / "u")
    assert type(load_ddpm_pipeline(str(tmp_path / "u"))).__name__ == "DDPMPipeline"
    (tmp_path / "other").mkdir()
    (tmp_path / "other/model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(ValueError, match="StableDiffusionPipeline"):
        load_ddpm_pipeline(str(tmp_path / "other"))
