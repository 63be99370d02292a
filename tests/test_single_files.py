"""Stable Diffusion in one file: written in the layout of A1111 and ComfyUI, and read by diffusers."""

import numpy as np
import pytest
import torch
from conftest import tiny_sd, tiny_sdxl, tiny_text_encoder
from records import run_record
from safetensors.torch import load_file, save_file
from torch import nn

from hf_unlearn.cli.commands.t2i import flag_classes
from hf_unlearn.cli.parsing import parse
from hf_unlearn.cli.runs.sd import TextToImageRun
from hf_unlearn.families.load import load_model
from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline
from hf_unlearn.report.loading import loading
from hf_unlearn.saving.single_file import RESNET, single_file_state, write_single_file


def tiny_sd2(seed: int = 0):
    """With OpenCLIP's text encoder and linear projections."""
    from diffusers import UNet2DConditionModel

    pipeline = tiny_sd(seed)
    config = {**pipeline.unet.config, "use_linear_projection": True}
    torch.manual_seed(seed)
    parts = {"unet": UNet2DConditionModel.from_config(config), "text_encoder": tiny_text_encoder(hidden_act="gelu")}
    pipeline.register_modules(**parts)
    return pipeline


def tiny_xl(seed: int = 0):
    """Text encoders of two widths, by which diffusers tells one from the other, and two layers in a block."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModelWithProjection

    pipeline = tiny_sdxl(seed)
    wide = dict(hidden_size=24, projection_dim=20)
    torch.manual_seed(seed)
    encoder = tiny_text_encoder_wide(CLIPTextModelWithProjection, **wide)
    sizes = dict(cross_attention_dim=40, projection_class_embeddings_input_dim=20 + 6 * 4, layers_per_block=2)
    unet = UNet2DConditionModel.from_config({**pipeline.unet.config, **sizes})
    pipeline.register_modules(text_encoder_2=encoder, unet=unet)
    return pipeline


def tiny_text_encoder_wide(cls, **sizes):
    from transformers import CLIPTextConfig

    common = dict(intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=514)
    return cls(CLIPTextConfig(**{**common, **sizes}, hidden_act="gelu", bos_token_id=512, eos_token_id=513))


KINDS = {"1.x": tiny_sd, "2.x": tiny_sd2, "XL": tiny_xl}


@pytest.fixture(params=KINDS)
def pipeline(request):
    return KINDS[request.param](3)


def drawn(pipeline) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    options = dict(num_inference_steps=2, output_type="np", height=16, width=16)
    return pipeline("a cat", generator=torch.Generator().manual_seed(0), **options).images


def weights(pipeline) -> dict[str, torch.Tensor]:
    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}


def same_weights(one, other) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_plain_diffusers_reads_what_is_written(tmp_path, pipeline):
    """The same weights, the same pixels."""
    pipeline.save_pretrained(tmp_path / "folder")
    write_single_file(pipeline, tmp_path / "model.safetensors")
    options = dict(config=str(tmp_path / "folder"), local_files_only=True)
    read = type(pipeline).from_single_file(str(tmp_path / "model.safetensors"), **options)
    assert same_weights(pipeline, read)
    assert np.array_equal(drawn(pipeline), drawn(read)) and not np.array_equal(drawn(read), drawn(tiny_sd(4)))


UNET, VAE = "model.diffusion_model.", "first_stage_model."
HEADS = {
    "1.x": {"cond_stage_model.transformer.text_model.encoder.layers.1.self_attn.k_proj.bias"},
    "2.x": {
        "cond_stage_model.model.transformer.resblocks.1.attn.in_proj_weight",
        "cond_stage_model.model.ln_final.bias",
        "cond_stage_model.model.positional_embedding",
    },
    "XL": {
        "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight",
        "conditioner.embedders.1.model.transformer.resblocks.0.mlp.c_proj.bias",
        "conditioner.embedders.1.model.text_projection",
        f"{UNET}label_emb.0.2.weight",
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_names_are_those_of_the_layout(kind):
    """Written down by hand, from the names of Stability's checkpoints."""
    pipeline = KINDS[kind]()
    layers = pipeline.unet.config.layers_per_block
    unet = ("input_blocks.0.0.weight", "time_embed.2.bias", "out.2.weight", "middle_block.2.in_layers.2.bias")
    unet += ("middle_block.1.transformer_blocks.0.attn2.to_k.weight", f"input_blocks.{layers + 2}.1.norm.weight")
    unet += (f"input_blocks.{layers + 1}.0.op.weight", f"output_blocks.{layers + 1}.0.skip_connection.bias")
    unet += (f"output_blocks.{layers}.2.conv.weight",)  # behind the attention
    vae = ("encoder.mid.attn_1.q.weight", "decoder.up.1.upsample.conv.weight", "quant_conv.bias")
    wanted = HEADS[kind] | {UNET + name for name in unet} | {VAE + name for name in vae}
    names = set(single_file_state(pipeline))
    assert wanted <= names, wanted - names
    assert len(names) == len(weights(pipeline)) - {"1.x": 0, "2.x": 8, "XL": 8}[kind]  # q, k and v in one


def test_an_upsampler_without_attention_comes_first(tmp_path):
    """As in the first up block of Stable Diffusion 1.x."""
    from diffusers import UNet2DConditionModel

    pipeline = tiny_sd(0)
    blocks = dict(down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"))
    blocks |= dict(up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
    pipeline.register_modules(unet=UNet2DConditionModel.from_config({**pipeline.unet.config, **blocks}))
    assert "model.diffusion_model.output_blocks.1.1.conv.weight" in single_file_state(pipeline)
    write_single_file(pipeline, tmp_path / "model.safetensors")


def test_half_precision(tmp_path):
    pipeline = tiny_sd(0)
    write_single_file(pipeline, tmp_path / "half.safetensors", torch.float16)
    assert {value.dtype for value in load_file(tmp_path / "half.safetensors").values()} == {torch.float16}
    pipeline.save_pretrained(tmp_path / "half")
    loaded = load_text_to_image_pipeline(str(tmp_path / "half.safetensors"))
    assert {part.dtype for part in loaded.components.values() if isinstance(part, nn.Module)} == {torch.float32}
    found = weights(loaded)
    assert all(torch.equal(value.half().float(), found[name]) for name, value in weights(pipeline).items())


def test_what_is_not_read_back_is_not_written(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_text("an earlier one")
    pipeline = tiny_sd(0)
    monkeypatch.setattr("hf_unlearn.saving.single_file.RESNET", {**RESNET, "norm1": "out_layers.0"})
    with pytest.raises(RuntimeError, match="does not read unet .* back as it was written"):
        write_single_file(pipeline, tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").read_text() == "an earlier one"


@pytest.mark.parametrize("way", ["named", "beside", "load_model"])
def test_a_single_file_loads(tmp_path, pipeline, way):
    """Without a network: its configuration is named, or lies beside it."""
    pipeline.save_pretrained(tmp_path / ("elsewhere" if way == "named" else "v1.5"))
    path = str(tmp_path / "v1.5.safetensors")
    write_single_file(pipeline, path)
    if way == "load_model":
        loaded = load_model(path)[0]
    else:
        loaded = load_text_to_image_pipeline(path, config=str(tmp_path / "elsewhere") if way == "named" else None)
    assert type(loaded) is type(pipeline) and same_weights(pipeline, loaded)
    assert np.array_equal(drawn(pipeline), drawn(loaded)) and loaded.config["_name_or_path"] == path


def test_a_ckpt_of_tensors_alone(tmp_path):
    pipeline = tiny_sd(0)
    pipeline.save_pretrained(tmp_path / "old")
    state = {name: value.clone() for name, value in single_file_state(pipeline).items()}
    torch.save({"state_dict": state, "global_step": 7}, tmp_path / "old.ckpt")
    assert same_weights(load_text_to_image_pipeline(str(tmp_path / "old.ckpt")), pipeline)


class Code:
    def __reduce__(self):
        return (print, ("run",))


def test_single_files_that_cannot_be_read(tmp_path, capsys):
    """One line each, and no code is run."""
    pipeline = tiny_sd(0)
    pipeline.save_pretrained(tmp_path / "config")
    state = single_file_state(pipeline)
    state = {name: value.clone() for name, value in state.items()}
    lacking = {name: value for name, value in state.items() if not name.startswith("first_stage_model.encoder")}
    files = {
        "torn": None,
        "lora": {"lora_unet_mid_block.lora_down.weight": torch.ones(1)},
        "other": {"layer.weight": torch.ones(1)},
        "lacking": lacking,
        "whole": state,
    }
    for name, content in files.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(b"torn") if content is None else save_file(content, path)
    torch.save({"state_dict": state, "callbacks": Code()}, tmp_path / "code.ckpt")
    whole = str(tmp_path / "config")
    for name, config, said in (
        ("torn.safetensors", None, "torn.safetensors"),
        ("lora.safetensors", whole, "is an adapter: give its base model"),
        ("other.safetensors", None, "holds no whole model in the layout of Stable Diffusion"),
        ("lacking.safetensors", whole, "lacking.safetensors"),
        ("whole.safetensors", None, "set --model_config to the folder of a pipeline of the same architecture"),
        ("code.ckpt", whole, "could run code, so it is not loaded"),
    ):
        with pytest.raises((ValueError, OSError)) as error:
            load_text_to_image_pipeline(str(tmp_path / name), config=config)
        text = str(error.value)
        assert said in text and "\n" not in text and len(text) < 700, text
    assert "run" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="is a single file, which has no variant: leave --variant out"):
        load_text_to_image_pipeline(str(tmp_path / "whole.safetensors"), variant="fp16")
    with pytest.raises(ValueError, match="--model_config is for a model in a single file"):
        load_text_to_image_pipeline(whole, config=whole)


def test_an_attack_at_the_end_of_a_run_has_its_original(tmp_path):
    """Whose configuration only the command knows; and without --model_config what it finds by name."""
    pipeline = tiny_sd(3)
    pipeline.save_pretrained(tmp_path / "elsewhere")
    path = str(tmp_path / "church.safetensors")
    write_single_file(pipeline, path)
    words = ["--concept", "a church", "--pretrained_model_name_or_path", path]
    config = ["--model_config", str(tmp_path / "elsewhere")]
    known = TextToImageRun(parse(flag_classes(), [*words, *config])).known()
    assert known.place is None and same_weights(known.original, pipeline)
    assert TextToImageRun(parse(flag_classes(), words)).known().place == (path, None)


@pytest.mark.parametrize(("base", "reader"), [("church.safetensors", "single_file"), ("user/church", "pretrained")])
def test_the_snippet_of_an_adapter_reads_its_base(base, reader):
    origin = {"name": base, "revision": None, "on_hub": "/" in base, "licence": {}}
    kind = dict(pipeline_tag="text-to-image", library_name="peft", loads_with=["StableDiffusionPipeline"])
    text = loading(run_record(base_model=origin, per_class=[], **kind), "run")
    assert f'StableDiffusionPipeline.from_{reader}("{base}")' in text and 'load_lora_weights("run")' in text
