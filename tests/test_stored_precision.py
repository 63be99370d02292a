"""Pipelines stored in half precision: what is frozen keeps it, what is trained does not, what is written has it."""

import copy
import json

import pytest
import torch
from conftest import config, latents, tiny_sd, tiny_sdxl
from diffusers import DiffusionPipeline
from pipeline_cases import SIDES, small
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from hf_unlearn import METHODS, SFRon, TextToImage, UnlearnTrainer, add_lora, encode_prompts, split_by_label
from hf_unlearn.cli.estimates import adapted, memory, outline
from hf_unlearn.cli.flags import LoraFlags, TrainingFlags
from hf_unlearn.common.weights import model_digest
from hf_unlearn.families import denoiser_of, side_of
from hf_unlearn.families.latents import Drawing, drawn_latents
from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline
from hf_unlearn.families.text_to_image.text_encoder import text_to_image_objective
from hf_unlearn.families.vae import decoded, posterior_mean
from hf_unlearn.saliency.ranks import choose_lora
from hf_unlearn.saving.adapters import network_of
from hf_unlearn.saving.export import load_saved
from hf_unlearn.saving.single_file import write_single_file

TEXTS = ["a church", "a tall house", "a dog"]
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture(autouse=True)
def a_device_for_float16(monkeypatch):
    monkeypatch.setattr("hf_unlearn.families.text_to_image.load.runs_on_cpu", lambda: False)


def stored(folder, precision, make=tiny_sd):
    make().to(HALF[precision]).save_pretrained(folder)
    return str(folder)


def parts_of(pipeline) -> dict[str, nn.Module]:
    return {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}


def dtypes(pipeline) -> dict[str, set]:
    return {name: {p.dtype for p in part.parameters()} for name, part in parts_of(pipeline).items()}


def resident(pipeline) -> int:
    return sum(p.numel() * p.element_size() for part in parts_of(pipeline).values() for p in part.parameters())


def case(pipeline, **options):
    objective = text_to_image_objective(pipeline, encode_prompts(pipeline, TEXTS), {TEXTS[0]: TEXTS[1]}, **options)
    return objective, *split_by_label(latents(objective.prompts), 1)


def trained(folder, objective, forget, retain, method=None):
    options = dict(max_steps=3, per_device_train_batch_size=2, learning_rate=1e-3)
    trainer = UnlearnTrainer(objective, config(folder, **options), method or SFRon(), forget, retain)
    trainer.train()
    trainer.save_model()
    return trainer


@pytest.mark.parametrize("precision", HALF)
def test_every_part_keeps_the_precision_of_its_files(tmp_path, precision):
    name = stored(tmp_path, precision)
    kept, full = load_text_to_image_pipeline(name, precision="stored"), load_text_to_image_pipeline(name)
    assert dtypes(kept) == dict.fromkeys(parts_of(kept), {HALF[precision]})
    assert dtypes(full) == dict.fromkeys(parts_of(full), {torch.float32})
    assert resident(kept) * 2 == resident(full)
    assert model_digest(kept) == model_digest(full)  # an attack finds the original again


def test_parts_of_several_precisions_draw_together(tmp_path):
    """As published: a network in float32 beside text encoders in half precision, or the other way round."""
    for half, file in (("text_encoder", "a"), ("unet", "b"), ("vae", "c")):
        pipeline = tiny_sd()
        parts_of(pipeline)[half].to(torch.bfloat16)
        pipeline.save_pretrained(tmp_path / file)
        kept = load_text_to_image_pipeline(str(tmp_path / file), precision="stored")
        assert {n for n, kinds in dtypes(kept).items() if torch.bfloat16 in kinds} == {half}
        full = load_text_to_image_pipeline(str(tmp_path / file))
        drawn = [drawn_latents(p, ["a dog"], Drawing(2)) for p in (kept, full)]
        assert 0 <= (drawn[0] - drawn[1]).norm() <= 0.1 * drawn[1].norm()
        assert kept("a dog", num_inference_steps=1, output_type="np").images.shape == (1, 16, 16, 3)


@pytest.mark.parametrize("family", ["sd3", "flux", "flux2", "sana", "qwen", "pixart"])
def test_every_pipeline_draws_with_a_network_in_full_beside_half_parts(tmp_path, family):
    name = stored(tmp_path, "bf16", lambda: small(family))
    pipeline = load_text_to_image_pipeline(name, precision="stored")
    pipeline.set_progress_bar_config(disable=True)
    assert all(kinds == {torch.bfloat16} for kinds in dtypes(pipeline).values())
    network_of(pipeline).float()
    side = SIDES[family]
    asked = dict(prompt=["a dog"], num_inference_steps=2, height=side, width=side, output_type="np")
    assert pipeline(**asked, **denoiser_of(pipeline).sampling(pipeline, 2.0, 1)).images.shape == (1, side, side, 3)
    means = posterior_mean(pipeline.vae, torch.zeros(1, 3, side, side))
    assert decoded(pipeline.vae, means).shape[-1] == side


def test_float16_is_computed_in_float32_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.undo()
    name = stored(tmp_path / "base", "fp16")
    pipeline = load_text_to_image_pipeline(name, precision="stored")
    assert {torch.float32} == set().union(*dtypes(pipeline).values())
    trained(tmp_path / "run", *case(pipeline))
    assert written(tmp_path / "run") == loadable(pipeline, torch.float16)
    plain_draws(tmp_path / "run")


def test_an_autoencoder_that_overflows_in_float16_encodes_in_full(tmp_path):
    name = stored(tmp_path, "fp16", tiny_sdxl)
    kept, full = load_text_to_image_pipeline(name, precision="stored"), load_text_to_image_pipeline(name)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert kept.vae.config.force_upcast and torch.equal(*(posterior_mean(p.vae, images) for p in (kept, full)))
    assert kept.vae.dtype == torch.float16


def written(folder) -> dict[str, set]:
    found = {path.parent.name: load_file(path) for path in folder.glob("*/*.safetensors")}
    return {name: {value.dtype for value in state.values()} for name, state in found.items()}


def loadable(pipeline, half) -> dict[str, set]:
    """The precisions of files that load without being told one: transformers keeps that of the files."""
    return {n: {torch.float32 if isinstance(p, PreTrainedModel) else half} for n, p in parts_of(pipeline).items()}


def plain_draws(folder) -> None:
    """As a stranger would on any machine."""
    plain = DiffusionPipeline.from_pretrained(folder)
    assert plain("a dog", num_inference_steps=1, output_type="np").images.shape[0] == 1


def test_very_large_text_encoders_stay_in_half_precision(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_unlearn.common.precisions.LARGE", 10)
    objective, forget, retain = case(
        load_text_to_image_pipeline(stored(tmp_path / "base", "bf16"), precision="stored")
    )
    LoraFlags().apply(objective, forget, retain, TrainingFlags())
    trained(tmp_path / "run", objective, forget, retain)
    assert written(tmp_path / "run") == dict.fromkeys(parts_of(objective.pipeline), {torch.bfloat16})


@pytest.mark.parametrize("precision", HALF)
def test_all_weights_are_trained_in_full_and_written_as_they_came(tmp_path, precision):
    """The run is that on the same weights in float32, up to the rounding of what it is told of the prompts."""
    name = stored(tmp_path / "base", precision)
    ends = []
    for kind in ("stored", "fp32"):
        objective, forget, retain = case(load_text_to_image_pipeline(name, precision=kind))
        LoraFlags().apply(objective, forget, retain, TrainingFlags())
        assert {p.dtype for p in objective.network.parameters()} == {torch.float32}
        before = copy.deepcopy(objective.network.state_dict())
        trained(tmp_path / kind, objective, forget, retain)
        after = objective.network.state_dict()
        ends.append(torch.cat([(after[n] - v).flatten() for n, v in before.items()]))
        assert written(tmp_path / kind) == loadable(objective.pipeline, HALF[precision])
        plain_draws(tmp_path / kind)
        again = DiffusionPipeline.from_pretrained(tmp_path / kind, torch_dtype=HALF[precision])
        assert all(torch.equal(v.float(), after[n]) for n, v in again.unet.state_dict().items())
        drawn = objective.pipeline("a dog", num_inference_steps=1, output_type="np").images
        assert drawn.shape == (1, 16, 16, 3)
    assert ends[1].norm() > 0 and (ends[0] - ends[1]).norm() <= 0.35 * ends[1].norm()  # steps of Adam's sign


@pytest.mark.parametrize("precision", HALF)
def test_an_adapter_on_a_half_base_ends_as_on_the_same_weights_in_full(tmp_path, precision):
    """With a method whose gradients are far above the rounding: prompts say nearly the same to random weights."""
    method = METHODS["finetune"]()
    name = stored(tmp_path / "base", precision)
    changes = []
    for kind in ("stored", "fp32"):
        objective, forget, retain = case(load_text_to_image_pipeline(name, precision=kind))
        LoraFlags(use_lora=True, lora_select="all", rank=2).apply(objective, forget, retain, TrainingFlags())
        network = objective.network
        assert {p.dtype for p in network.parameters() if p.requires_grad} == {torch.float32}
        base = {p.dtype for p in network.parameters() if not p.requires_grad}
        assert base == {HALF[precision] if kind == "stored" else torch.float32}
        trained(tmp_path / kind, objective, forget, retain, method)
        moved = [layer for layer in network.modules() if hasattr(layer, "get_delta_weight")]
        changes.append(torch.cat([layer.get_delta_weight("default").flatten().float() for layer in moved]))
        assert objective.pipeline("a dog", num_inference_steps=1, output_type="np").images.shape == (1, 16, 16, 3)
    near = {"bf16": 0.35, "fp16": 0.1}[precision]
    assert changes[1].norm() > 0 and (changes[0] - changes[1]).norm() <= near * changes[1].norm()


def test_the_ranks_are_those_of_full_precision(tmp_path):
    name = stored(tmp_path, "bf16")
    chosen = []
    for kind in ("stored", "fp32"):
        objective, forget, retain = case(load_text_to_image_pipeline(name, precision=kind))
        objective.register_buffer("embeds", torch.ones_like(objective.embeds, dtype=torch.float32), persistent=False)
        LoraFlags(use_lora=True, rank=2).apply(objective, forget, retain, TrainingFlags())
        chosen.append(objective.adapter.config.rank_pattern)
        assert objective.network.conv_in.weight.dtype == (torch.bfloat16 if kind == "stored" else torch.float32)
    assert chosen[0] == chosen[1]


def test_a_merged_adapter_is_trained_on_full_weights_and_written_in_half(tmp_path):
    objective, forget, retain = case(load_text_to_image_pipeline(stored(tmp_path / "a", "bf16"), precision="stored"))
    LoraFlags(use_lora=True, lora_select="all", merge=True).apply(objective, forget, retain, TrainingFlags())
    assert {p.dtype for p in objective.network.parameters()} == {torch.float32}
    trained(tmp_path / "run", objective, forget, retain)
    assert written(tmp_path / "run")["unet"] == {torch.bfloat16}


def test_a_base_may_be_asked_for_in_another_precision(tmp_path):
    name = stored(tmp_path, "bf16")
    for wanted in ("fp32", "fp16"):
        objective, forget, retain = case(load_text_to_image_pipeline(name, precision="stored"))
        lora = choose_lora(objective, forget, retain, "all", rank=2)
        add_lora(objective, lora, base_precision=wanted)
        assert objective.network.conv_in.weight.dtype == {"fp32": torch.float32, "fp16": torch.float16}[wanted]


def test_a_finished_run_is_found_with_the_weights_that_were_written(tmp_path):
    name = stored(tmp_path / "base", "bf16")
    objective, *data = case(load_text_to_image_pipeline(name, precision="stored"))
    LoraFlags().apply(objective, *data, TrainingFlags())
    trained(tmp_path / "run", objective, *data)
    again, *data = case(load_text_to_image_pipeline(name, precision="stored"))
    LoraFlags().apply(again, *data, TrainingFlags())
    load_saved(again, str(tmp_path / "run"))
    ours, theirs = objective.network.state_dict(), again.network.state_dict()
    assert all(torch.equal(v, theirs[n]) for n, v in ours.items())


def test_a_single_file_is_read_and_written_in_its_precision(tmp_path):
    pipeline = tiny_sd().to(torch.bfloat16)
    write_single_file(pipeline, tmp_path / "model.safetensors")
    pipeline.save_pretrained(tmp_path / "model")
    kept = load_text_to_image_pipeline(str(tmp_path / "model.safetensors"), precision="stored")
    assert dtypes(kept) == dict.fromkeys(parts_of(kept), {torch.bfloat16})
    full = load_text_to_image_pipeline(str(tmp_path / "model.safetensors"))
    write_single_file(full, tmp_path / "again.safetensors")
    assert {v.dtype for v in load_file(tmp_path / "again.safetensors").values()} == {torch.bfloat16}
    assert full.unet.dtype == torch.float32


def test_the_estimate_knows_what_is_kept_in_half(tmp_path):
    name, full = stored(tmp_path / "half", "bf16"), tmp_path / "full"
    tiny_sd().save_pretrained(full)
    found = {}
    for kind, folder in (("half", name), ("full", str(full))):
        network = outline(folder)
        found[kind] = [
            memory(network, "full", SFRon(), 2),
            memory(adapted(copy.deepcopy(network), 2), "lora", SFRon(), 2),
        ]
    whole = sum(p.numel() for p in outline(name).parameters())
    assert found["half"][0] == found["full"][0]  # what is trained is in float32
    assert found["full"][1].lasting["weights"] - found["half"][1].lasting["weights"] == 2 * whole
    assert found["half"][1].preparing["frozen weights in full"] == 2 * whole


def test_a_trained_text_encoder_and_built_pipelines_are_as_ever(tmp_path):
    with pytest.raises(ValueError, match="float16, which cannot be trained: load float32"):
        TextToImage(tiny_sd().to(torch.float16), encode_prompts(tiny_sd(), TEXTS))
    objective, *_ = case(load_text_to_image_pipeline(stored(tmp_path, "fp16")), train_method="text_encoder")
    assert objective.network.dtype == torch.float32
    assert side_of(tiny_sd()) == 16


LEAN = ("--bf16_weights", "--use_8bit_adam", "--masked_moments")


@pytest.mark.parametrize(("precision", "more"), [("bf16", ()), ("fp32", LEAN)])
def test_the_command_writes_what_it_was_given_and_says_so(tmp_path, call, precision, more):
    """In float32 too, where weights are trained in half precision."""
    base, out = tmp_path / "base", tmp_path / "out"
    pipeline = tiny_sd()
    (pipeline if precision == "fp32" else pipeline.to(HALF[precision])).save_pretrained(base)
    flags = ["--pretrained_model_name_or_path", base, "--concept", "a church", "--anchor_concept", "a house", *more]
    flags += ["--num_forget_images", "24", "--num_retain_images", "4", "--num_inference_steps", "1"]
    flags += ["--max_train_steps", "1", "--train_batch_size", "2", "--num_eval_images", "2", "--output_dir", str(out)]
    code, _, error = call("t2i", *flags)
    assert code == 0, error
    kept = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    assert written(out) == {"unet": {kept}, "vae": {kept}, "text_encoder": {torch.float32}}
    plain_draws(out)
    weights = json.loads((out / "unlearning_report.json").read_text())["weights"]
    assert weights["stored"] == (precision if precision in HALF else None) and weights["moved_share"] > 0
    assert f'from_pretrained("{out.name}")' in (out / "README.md").read_text()
