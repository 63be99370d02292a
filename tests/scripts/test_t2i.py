"""hf-unlearn t2i on a flow model, from the command to the saved pipeline; `sd` is the same command."""

import numpy
import torch
from diffusers import StableDiffusion3Pipeline
from pipeline_cases import tiny_sd3

from hf_unlearn.report.reading import read_record

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
