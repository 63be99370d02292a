"""hf-unlearn t2i on a flow model, from the command to the saved pipeline; `sd` is the same command."""

import numpy
import torch
from conftest import tiny_sd
from diffusers import StableDiffusion3Pipeline
from pipeline_cases import tiny_sd3

from hf_unlearn.cli.side_by_side import original_of
from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline
from hf_unlearn.report.reading import read_record
from hf_unlearn.saving.single_file import write_single_file

QUICK = [
    *("--num_forget_images", "8", "--num_retain_images", "4", "--num_inference_steps", "2"),
    *("--max_train_steps", "1", "--train_batch_size", "2", "--eval_profile", "quick"),
]


def test_from_the_command_to_the_saved_pipeline(call, tmp_path):
    tiny_sd3(with_t5=False).save_pretrained(tmp_path / "model")
    out = tmp_path / "out"
    flags = ["--concept", "a church", "--pretrained_model_name_or_path", tmp_path / "model", *QUICK]
    flags += ["--weighting_scheme", "logit_normal", "--train_method", "xattn"]
    code, text, error = call("t2i", *flags, "--method", "esd", "--output_dir", out)
    assert code == 0 and "[5/5] evaluate" in text, error
    record = read_record(out)
    assert record.command[1] == "t2i" and record.objective.scheduler == "FlowMatchEulerDiscreteScheduler"
    drawn = [
        StableDiffusion3Pipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)(
            "a church", num_inference_steps=2, height=16, width=16, generator=torch.manual_seed(0), output_type="np"
        ).images
        for folder in (tmp_path / "model", out)
    ]
    assert numpy.abs(drawn[0] - drawn[1]).max() > 0
    code, text, error = call("sd", *flags, "--method", "uce", "--output_dir", tmp_path / "uce")
    assert code == 2 and "uce edits cross attention (attn2), which a SD3Transformer2DModel has not" in error
    code, _, error = call("t2i", *flags, "--logit_std", "0", "--output_dir", tmp_path / "other")
    assert code == 2 and "logit_std" in error


def test_a_single_file_from_the_command_to_the_single_file(call, tmp_path):
    """With pictures for a tracker on the way; the result has the original's configuration."""
    tiny_sd().save_pretrained(tmp_path / "config")
    write_single_file(tiny_sd(), tmp_path / "church.safetensors")
    out = tmp_path / "out"
    flags = ["--concept", "a church", "--pretrained_model_name_or_path", tmp_path / "church.safetensors", *QUICK]
    flags += ["--model_config", tmp_path / "config", "--method", "esd", "--output_dir", out]
    code, text, error = call("t2i", *flags, "--dry_run")
    assert code == 0 and "esd trains 64,796 of 64,796 weights" in text and "model_config:" in text, text
    shown = ["--validation_prompts", "a dog", "a cat", "--num_validation_images", "1", "--report_to", "tensorboard"]
    code, _, error = call("t2i", *flags, *shown)
    assert code == 2 and "--validation_prompts are drawn at every evaluation: set --eval_steps" in error
    code, text, error = call("t2i", *flags, *shown, "--eval_steps", "1")
    assert code == 0 and "[5/5] evaluate" in text, error
    record = read_record(out)
    assert record.base_model.name == "church.safetensors" and not record.base_model.on_hub
    assert original_of(record, out) == (str(tmp_path / "church.safetensors"), None)
    assert (out / "unet/config.json").is_file() and "_name_or_path" not in (out / "model_index.json").read_text()
    [events] = (out / "runs").iterdir()
    assert any(b"validation/a dog" in path.read_bytes() for path in events.iterdir())
    code, text, error = call("export", out, "--format", "single_file")
    assert code == 0 and "out.safetensors: the whole model" in text, error
    read = load_text_to_image_pipeline(str(out / "out.safetensors"), config=str(out))
    saved = load_text_to_image_pipeline(str(out))
    assert all(torch.equal(p, read.unet.get_parameter(n)) for n, p in saved.unet.named_parameters())
    code, _, error = call("t2i", *flags[:3], tmp_path / "config", *flags[4:])
    assert code == 2 and "--model_config is for a model in a single file" in error
