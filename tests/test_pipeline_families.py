"""Every text-to-image pipeline beside Stable Diffusion's: losses by hand, steps, and what plain diffusers loads."""

import copy
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from conftest import config, environment
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from peft import PeftModel
from pipeline_cases import SIDES, TINY, small
from safetensors.torch import load_file

from hf_unlearn import METHODS, SFRon, TextToImage, UnlearnTrainer, encode_prompts, split_by_label
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.families import denoiser_of, side_of
from hf_unlearn.families.latents import Drawing, draw_latents
from hf_unlearn.families.vae import decoded, posterior_mean
from hf_unlearn.saliency.ranks import add_lora, choose_lora, lora_layers

TEXTS = ["a church", "a tall house", "a dog"]
ANCHORS = {TEXTS[0]: TEXTS[1]}
CROSS = ("sana", "pixart")
FAMILIES = tuple(TINY)


def case(family: str, **options):
    """(objective, forget, retain)."""
    pipeline = small(family)
    objective = TextToImage(pipeline, encode_prompts(pipeline, TEXTS), ANCHORS, **options)
    shape = denoiser_of(pipeline).shape(pipeline)
    generator = torch.Generator().manual_seed(2)
    latents, labels = torch.randn(12, *shape, generator=generator), torch.arange(12) % 3 + 1
    return objective, *split_by_label(ArrayDataset(latents, labels), 1)


def sigmas_of(family: str, scheduler) -> torch.Tensor:
    """(1000,) increasing, from the scheduler's own words; the latents are 8 x 8 in 16 patches."""
    even = numpy.linspace(1, 1 / 1000, 1000)
    if family == "sd3":
        return scheduler.sigmas.flip(0)
    if family == "sana":
        return torch.tensor(3 * even / (1 + 2 * even)).flip(0)
    mu = compute_empirical_mu(16, 50) if family == "flux2" else calculate_shift(16, 256, 4096, 0.5, 1.15)
    shifted = scheduler.time_shift(mu, 1.0, even)
    return torch.tensor(scheduler.stretch_shift_to_terminal(shifted) if family == "qwen" else shifted).flip(0)


def by_hand(family: str, pipeline, x, time, text):
    """What the network makes of one sample, as the pipeline's call asks it."""
    network, call, grid = pipeline.transformer, {"return_dict": False}, x.shape[-1] // 2
    if family == "sd3":
        embeds, _, pooled, _ = pipeline.encode_prompt(text, text, text, do_classifier_free_guidance=False)
        return network(x, embeds, pooled, time, **call)[0]
    if family == "flux":
        embeds, pooled, places = pipeline.encode_prompt(text, text)
        ids = pipeline._prepare_latent_image_ids(1, grid, grid, "cpu", x.dtype)
        patches = pipeline._pack_latents(x, 1, 4, 8, 8)
        told = dict(txt_ids=places, img_ids=ids, guidance=torch.tensor([3.5]), pooled_projections=pooled)
        output = network(patches, embeds, timestep=time / 1000, **told, **call)[0]
        return pipeline._unpack_latents(output, 16, 16, pipeline.vae_scale_factor)
    if family == "flux2":
        embeds, places = pipeline.encode_prompt(text)
        ids = pipeline._prepare_latent_ids(x)
        output = network(pipeline._pack_latents(x), embeds, time / 1000, ids, places, **call)[0]
        return pipeline._unpack_latents_with_ids(output, ids)
    if family == "qwen":
        embeds, mask = pipeline.encode_prompt(text)
        patches = pipeline._pack_latents(x, 1, 4, 8, 8)
        output = network(patches, embeds, mask, time / 1000, [[(1, grid, grid)]], **call)[0]
        return pipeline._unpack_latents(output, 16, 16, pipeline.vae_scale_factor)[:, :, 0]
    if family == "sana":
        instruction = None
        if text:
            instruction = SANA
        embeds, mask, _, _ = pipeline.encode_prompt(text, False, complex_human_instruction=instruction)
        return network(x, embeds, time, encoder_attention_mask=mask, **call)[0]
    embeds, mask, _, _ = pipeline.encode_prompt(text, False)
    told = {"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}
    return network(x, embeds, time, encoder_attention_mask=mask, **told, **call)[0].chunk(2, dim=1)[0]


SANA = [  # the instruction of SanaPipeline.__call__
    "Given a user prompt, generate an 'Enhanced prompt' that provides detailed visual descriptions suitable for image "
    "generation. Evaluate the level of detail in the user prompt:",
    "- If the prompt is simple, focus on adding specifics about colors, shapes, sizes, textures, and spatial "
    "relationships to create vivid and concrete scenes.",
    "- If the prompt is already detailed, refine and enhance the existing details slightly without overcomplicating.",
    "Here are examples of how to transform or refine prompts:",
    "- User Prompt: A cat sleeping -> Enhanced: A small, fluffy white cat curled up in a round shape, sleeping "
    "peacefully on a warm sunny windowsill, surrounded by pots of blooming red flowers.",
    "- User Prompt: A busy city street -> Enhanced: A bustling city street scene at dusk, featuring glowing street "
    "lamps, a diverse crowd of people in colorful clothing, and a double-decker bus passing by towering glass "
    "skyscrapers.",
    "Please generate only the enhanced description for the prompt below and avoid including any additional "
    "commentary or evaluations:",
    "User Prompt: ",
]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_losses_by_hand(family):
    """With label dropout: a dropped prompt is the empty one."""
    objective, _, retain = case(family, label_dropout=0.5)
    objective.eval()
    pipeline = objective.pipeline
    batch = {"pixel_values": retain.dataset.pixel_values[:4], "labels": torch.tensor([1, 2, 3, 2])}
    batch |= objective.draw(batch, torch.Generator().manual_seed(3))
    batch["drop_labels"] = torch.tensor([False, True, False, False])
    losses, wanted = objective(**batch), []
    for i, t in enumerate(batch["timesteps"]):
        image, noise = batch["pixel_values"][i : i + 1], batch["noise"][i : i + 1]
        text = "" if batch["drop_labels"][i] else objective.prompts.texts[batch["labels"][i]]
        if family == "pixart":
            kept = pipeline.scheduler.alphas_cumprod[t]
            noisy, time, target = kept.sqrt() * image + (1 - kept).sqrt() * noise, t[None], noise
        else:
            sigma = sigmas_of(family, pipeline.scheduler)[t].float()
            noisy, time, target = (1 - sigma) * image + sigma * noise, 1000 * sigma[None], noise - image
        wanted.append((by_hand(family, pipeline, noisy, time, text) - target).pow(2).mean())
    assert torch.allclose(losses, torch.stack(wanted), rtol=1e-6, atol=1e-6)


def test_the_instruction_is_the_pipelines():
    import inspect

    call = inspect.signature(small("sana").__call__).parameters["complex_human_instruction"].default
    assert SANA == call


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_drawn_is_what_the_network_sees(family, tmp_path):
    """Latents that the pipeline puts out decode to its own pixels, and images go to latents of that shape."""
    pipeline, side = small(family), SIDES[family]
    adapter = denoiser_of(pipeline)
    assert side_of(pipeline) == side
    latents = draw_latents(pipeline, TEXTS[:2], Drawing(2, 2.0, batch_size=2), tmp_path)
    assert latents.shape[1:] == adapter.shape(pipeline)
    pixels = pipeline(
        prompt=TEXTS[:2],
        num_inference_steps=2,
        height=side,
        width=side,
        generator=[torch.Generator().manual_seed(i) for i in range(2)],
        output_type="pt",
        **adapter.sampling(pipeline, 2.0, 2),
    ).images
    with torch.no_grad():
        own = decoded(pipeline.vae, latents)
        assert torch.allclose((own / 2 + 0.5).clamp(0, 1), pixels, atol=1e-4)
        again = posterior_mean(pipeline.vae, own)
    assert again.shape == latents.shape


@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_takes_a_step_with_its_adversary_and_in_bf16(family, tmp_path, monkeypatch):
    """Without a rate. The original's losses in two parts of the schedule are taken of few draws, which are enough."""
    monkeypatch.setattr("hf_unlearn.training.reference.BASELINE_SAMPLES", 32)
    objective, *parts = case(family, timestep_bins=2)
    assert len(objective.conditions) == (2 if family in ("sd3", "flux") else 1)
    before = copy.deepcopy(objective.network.state_dict())
    args = config(tmp_path, max_steps=1, learning_rate=None, bf16=True)
    trainer = UnlearnTrainer(objective, args, SFRon(), *parts)
    trainer.train()
    assert trainer.step.adversary.turns == 1
    state = objective.network.state_dict()
    assert any(not torch.equal(state[n], before[n]) for n in state)
    assert all(value.isfinite().all() for value in state.values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["esd", "concept_ablation", "salun", "uce"])
def test_methods_move_the_text_side_alone_or_say_why_not(family, method, tmp_path):
    objective, *parts = case(family, train_method="xattn")
    if method == "uce" and family not in CROSS:
        with pytest.raises(ValueError, match=r"uce edits cross attention \(attn2\), which a .*Transformer.* has not"):
            UnlearnTrainer(objective, config(tmp_path), METHODS[method](), *parts)
        return
    before = copy.deepcopy(objective.network.state_dict())
    UnlearnTrainer(objective, config(tmp_path, max_steps=1), METHODS[method](), *parts).train()
    state = objective.network.state_dict()
    moved = {name for name in state if not torch.equal(state[name], before[name])}
    words = {"attn2"} if family in CROSS else {"add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"}
    norms = {"norm_added_q", "norm_added_k"}
    assert moved and all(set(name.split(".")) & (words | norms) for name in moved)


@pytest.mark.parametrize("family", CROSS)
def test_uce_edits_what_the_cross_attention_reads(family, tmp_path):
    """As the weights that hold the rest vanish, the concept's key becomes the anchor's."""
    objective, *parts = case(family)
    network, before = objective.network, copy.deepcopy(objective.network)
    tokens = objective.last_tokens()[:, 0]
    assert tokens.shape == (4, network.config.cross_attention_dim)
    weights = METHODS["uce"](stay_weight=1e-5, preserve_weight=0.0)
    UnlearnTrainer(objective, config(tmp_path), weights, *parts).train()
    name = "transformer_blocks.0.attn2.to_k.weight"
    new, old = (dict(n.named_parameters())[name] for n in (network, before))
    with torch.no_grad():
        assert torch.allclose(new @ tokens[1], old @ tokens[2], atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_train_methods_share_the_network_out(family):
    objective, *_ = case(family)
    network, adapter = objective.network, denoiser_of(objective.pipeline)
    every = {name for name, _ in network.named_parameters()}
    parts = {method: adapter.trained(network, method) for method in ("full", "xattn", "selfattn", "noxattn")}
    assert parts["full"] == every - adapter.idle(network)
    assert parts["xattn"] and parts["selfattn"] and not parts["xattn"] & parts["selfattn"]
    assert not parts["noxattn"] & parts["xattn"] and parts["selfattn"] <= parts["noxattn"]
    if family not in CROSS:
        assert lora_layers(network, "xattn").keys() == {
            n.removesuffix(".weight")
            for n in parts["xattn"]
            if n.endswith(".weight") and "norm" not in n.split(".")[-2]
        }


@pytest.mark.parametrize("family", FAMILIES)
def test_every_trained_weight_has_a_gradient(family):
    """Else two processes would wait for each other's."""
    objective, forget, _ = case(family)
    batch = {"pixel_values": forget.dataset.pixel_values[:2], "labels": torch.tensor([1, 2])}
    batch |= objective.draw(batch, torch.Generator().manual_seed(0))
    objective(**batch).sum().backward()
    lost = [name for name, p in objective.network.named_parameters() if p.requires_grad and p.grad is None]
    assert not lost
    idle = denoiser_of(objective.pipeline).idle(objective.network)
    assert bool(idle) == (family == "qwen")


LOADED = """
import sys, numpy, torch
sys.modules["hf_unlearn"] = None
from diffusers import DiffusionPipeline
torch.set_num_threads(1)
for folder in sys.argv[1:]:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    call = {"use_resolution_binning": False} if "sana" in folder or "pixart" in folder else {}
    side = 32 if "sana" in folder else 16
    images = pipeline(prompt="a dog", generator=torch.manual_seed(3), num_inference_steps=2, height=side, width=side,
                      output_type="np", **call).images
    numpy.save(folder + ".npy", images)
"""


def test_saved_pipelines_give_the_same_pixels_without_this_package(tmp_path):
    here = {}
    for family in FAMILIES:
        objective, *parts = case(family)
        trainer = UnlearnTrainer(objective, config(tmp_path / "run", max_steps=1), METHODS["esd"](), *parts)
        trainer.train()
        trainer.save_model(str(tmp_path / family))
        call = {"use_resolution_binning": False} if family in CROSS else {}
        side = SIDES[family]
        here[family] = objective.pipeline(
            prompt="a dog",
            generator=torch.manual_seed(3),
            num_inference_steps=2,
            height=side,
            width=side,
            output_type="np",
            **call,
        ).images
    command = [sys.executable, "-c", LOADED, *(str(tmp_path / family) for family in FAMILIES)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    for family in FAMILIES:
        # Attention over 512 tokens rounds by where its memory lies.
        assert numpy.abs(numpy.load(tmp_path / f"{family}.npy") - here[family]).max() <= 1e-6, family


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_an_adapter_loads_by_the_pipelines_own_word(family, tmp_path):
    objective, *parts = case(family)
    original = copy.deepcopy(objective.network)
    with torch.enable_grad():
        add_lora(objective, choose_lora(objective, *parts, "all", rank=2, lora_alpha=3))
        trainer = UnlearnTrainer(
            objective, config(tmp_path, max_steps=1, learning_rate=1e-2), METHODS["esd"](), *parts
        )
        trainer.train()
        trainer.save_model()

    def output(network):
        args, kwargs = objective.probe(torch.Generator().manual_seed(0))
        return network.eval()(*args, **kwargs, return_dict=False)[0]

    wanted = output(objective.network)
    assert (wanted - output(original)).abs().max() > 1e-5
    if family == "pixart":  # whose pipeline loads no adapters
        loaded = PeftModel.from_pretrained(original, str(tmp_path))
    else:
        plain = type(objective.pipeline)(**{**objective.pipeline.components, "transformer": original})
        plain.load_lora_weights(str(tmp_path), weight_name="pytorch_lora_weights.safetensors")
        loaded = plain.transformer
    assert (output(loaded) - wanted).abs().max() <= 1e-5


PAIR = ("sd3", "qwen")


def train_pair(folder) -> int:
    """Train and save the pipelines of `PAIR`; return the number of processes."""
    for family in PAIR:
        objective, *parts = case(family)
        args = config(f"{folder}/{family}", max_steps=2, adam_epsilon=1e-4)
        args.per_device_train_batch_size = 4 // args.world_size
        trainer = UnlearnTrainer(objective, args, SFRon(use_mask=False, adversary=True), *parts)
        trainer.train()
        trainer.save_model()
    return args.world_size


WORKER = """
import sys
from test_pipeline_families import train_pair
print(f"world size {train_pair(sys.argv[1])}\\n", end="", flush=True)
"""


def test_two_processes_equal_one(tmp_path):
    """That is this one: each further process imports the libraries for longer than it trains."""
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    with subprocess.Popen(
        [*command, str(tmp_path / "worker.py"), str(tmp_path / "2")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(ACCELERATE_USE_CPU="true"),
    ) as both:
        assert train_pair(tmp_path / "1") == 1
        said, error = both.communicate(timeout=300)
    assert both.returncode == 0 and "world size 2" in said, error
    for family in PAIR:
        file = f"{family}/transformer/diffusion_pytorch_model.safetensors"
        one, two = (load_file(Path(tmp_path, str(count), file)) for count in (1, 2))
        assert max((one[name] - two[name]).abs().max().item() for name in one) <= 2e-6
