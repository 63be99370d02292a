"""Caches of latents and masks: another key for all that decides, the same for the rest, and shared by processes."""

import copy
import multiprocessing
import os
import threading

import pytest
import torch
from conftest import config, latents, tiny_pipeline, tiny_sd, tiny_sdxl, tiny_text_encoder
from diffusers import DDPMScheduler
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModelWithProjection

from hf_unlearn import SalUn, SFRon, TextToImage, UnlearnTrainer, encode_prompts, split_by_label
from hf_unlearn.data.fingerprint import fingerprint, whole_fingerprint
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.families.latents import Drawing, draw_latents, encode_images
from hf_unlearn.saliency.masks import Masks

QUICK = Drawing(num_inference_steps=1, batch_size=2)


def pictures(count: int = 3) -> ArrayDataset:
    generator = torch.Generator().manual_seed(0)
    return ArrayDataset(torch.rand(count, 3, 16, 16, generator=generator) * 2 - 1)


def folders(path) -> set[str]:
    return {entry.name for entry in path.iterdir() if entry.is_dir()}


# ---- latents -----------------------------------------------------------------------------------
def second_encoder(pipeline):
    torch.manual_seed(7)
    pipeline.text_encoder_2 = tiny_text_encoder(CLIPTextModelWithProjection, projection_dim=16)


def other_steps(pipeline):
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, beta_end=0.03)


def other_scheduler(pipeline):
    pipeline.scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)


def second_tokenizer(pipeline):
    pipeline.tokenizer_2.add_tokens(["church</w>"])


def other_setting(pipeline):
    pipeline.register_to_config(force_zeros_for_empty_prompt=not pipeline.config.force_zeros_for_empty_prompt)


def shifted_vae(pipeline):
    with torch.no_grad():
        next(pipeline.vae.parameters()).add_(1)


def half(pipeline):
    pipeline.to(torch.bfloat16)


CHANGES = [second_encoder, other_steps, other_scheduler, second_tokenizer, other_setting, shifted_vae, half]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_drawn_latents_depend_on_the_whole_pipeline(tmp_path, change):
    pipeline = tiny_sdxl()
    draw_latents(pipeline, ["a"], QUICK, tmp_path)
    first = folders(tmp_path)
    draw_latents(pipeline, ["a"], QUICK, tmp_path)
    assert folders(tmp_path) == first and len(first) == 1
    change(pipeline)
    draw_latents(pipeline, ["a"], QUICK, tmp_path)
    assert len(folders(tmp_path)) == 2


def test_encoded_latents_depend_on_the_vaes_configuration_and_their_parts(tmp_path):
    pipeline = tiny_sd()
    whole = encode_images(pipeline.vae, pictures(), tmp_path, flips=False)
    parted = encode_images(pipeline.vae, pictures(), tmp_path, flips=False, batch_size=2)  # two parts, not one
    assert torch.allclose(whole.pixel_values, parted.pixel_values, atol=1e-5)
    pipeline.vae.register_to_config(scaling_factor=2 * pipeline.vae.config.scaling_factor)
    scaled = encode_images(pipeline.vae, pictures(), tmp_path, flips=False)
    assert torch.allclose(scaled.pixel_values, 2 * whole.pixel_values, atol=1e-5)
    pipeline.vae.to(torch.bfloat16)
    encode_images(pipeline.vae, pictures(), tmp_path, flips=False)
    assert len(folders(tmp_path)) == 4


@pytest.mark.parametrize("how", ["zeros", "other numbers", "another name", "cut"])
def test_a_part_that_was_changed_is_made_again(tmp_path, how):
    vae = tiny_sd().vae
    made = encode_images(vae, pictures(), tmp_path, flips=False).pixel_values
    path = next(tmp_path.rglob("00000.safetensors"))
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-8])
    elif how == "zeros":
        path.write_bytes(bytes(path.stat().st_size))
    else:
        name = "latents" if how == "other numbers" else "noise"
        save_file({name: load_file(path)["latents"] + 1}, path, metadata={"digest": "0"})
    assert torch.equal(encode_images(vae, pictures(), tmp_path, flips=False).pixel_values, made)


def encode(folder, results) -> None:
    try:
        made = encode_images(tiny_sd().vae, pictures(12), folder, batch_size=1)
        results.put(made.pixel_values.double().sum().item())
    except BaseException as error:  # noqa: BLE001  what went wrong in another process
        results.put(f"{type(error).__name__}: {error}")


def test_two_processes_and_a_thread_share_a_cache(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=encode, args=(tmp_path, results)) for _ in range(2)]
    workers.append(threading.Thread(target=encode, args=(tmp_path, results)))
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert len(set(found)) == 1 and isinstance(found[0], float), found
    assert len(folders(tmp_path)) == 1 and not list(tmp_path.rglob("*.partial"))


# ---- the data ----------------------------------------------------------------------------------
def test_every_item_counts():
    """`fingerprint`, which checkpoints and records hold, reads 64 of them."""
    images = torch.zeros(500, 1, 2, 2)
    first = ArrayDataset(images.clone(), torch.zeros(500, dtype=torch.int64))
    other = copy.deepcopy(first)
    unseen = next(i for i in range(500) if fingerprint(changed(first, i)) == fingerprint(first))
    other.label_tensor[unseen] = 1
    assert whole_fingerprint(changed(first, unseen)) != whole_fingerprint(first) != whole_fingerprint(other)
    assert whole_fingerprint(ArrayDataset(images.view(500, 2, 2, 1))) != whole_fingerprint(ArrayDataset(images))
    assert whole_fingerprint(copy.deepcopy(first)) == whole_fingerprint(first)


def changed(data: ArrayDataset, i: int) -> ArrayDataset:
    made = copy.deepcopy(data)
    made.pixel_values[i] += 1
    return made


# ---- masks -------------------------------------------------------------------------------------
def prepared(folder, pipeline=None, data=None, method=None, objective=None, **values) -> list[str]:
    """The names of the mask files after a trainer prepared its own."""
    data = data or (lambda made: split_by_label(made, 1))(many())
    objective = objective or pipeline or tiny_pipeline()
    method = method or SFRon(fisher_samples=4, fisher_batch_size=4)
    trainer = UnlearnTrainer(objective, config(folder / "out", **values), method, *data)
    trainer.prepare_masks(folder / "masks")
    assert trainer.masks is not None
    return sorted(os.listdir(folder / "masks"))


def many() -> ArrayDataset:
    generator = torch.Generator().manual_seed(1)
    return ArrayDataset(torch.rand(400, 1, 8, 8, generator=generator) * 2 - 1, torch.arange(400) % 4)


def test_masks_depend_on_all_data_weights_and_options(tmp_path):
    count = len(prepared(tmp_path))
    assert count == len(prepared(tmp_path)) == 1
    changed_one = many()
    changed_one.pixel_values[2] += 0.1  # a retained image, which the 64 of `fingerprint` leave out
    assert fingerprint(split_by_label(changed_one, 1)[1]) == fingerprint(split_by_label(many(), 1)[1])
    for options in (
        {"data": split_by_label(changed_one, 1)},
        {"pipeline": tiny_pipeline(seed=1)},
        {"pipeline": tiny_pipeline(beta_end=0.03)},
        {"method": SFRon(fisher_samples=4, fisher_batch_size=4, fisher="batch")},
        {"method": SalUn()},
        {"seed": 5},
    ):
        count += 1
        assert len(prepared(tmp_path, **options)) == count, options


def test_masks_depend_on_what_the_objective_is_told(tmp_path):
    pipeline = tiny_sd()
    made = []
    for texts, method, dropout in ((["a", "b"], "full", 0.1), (["a", "c"], "full", 0.1), (["a", "c"], "full", 0.5)):
        prompts = encode_prompts(pipeline, texts)
        objective = TextToImage(pipeline, prompts, train_method=method, label_dropout=dropout)
        data = (latents(prompts, 6), latents(prompts, 6, seed=3))
        made.append(prepared(tmp_path, objective=objective, data=data))
    assert [len(names) for names in made] == [1, 2, 3]


def test_torn_and_changed_masks_are_computed_again(tmp_path):
    (name,) = prepared(tmp_path)
    path = tmp_path / "masks" / name
    masks, whole = Masks.load(path).tensors, path.read_bytes()
    for spoiled in (whole[:-3], b"", whole[:-1] + bytes([whole[-1] ^ 255])):
        path.write_bytes(spoiled)
        assert prepared(tmp_path) == [name]
        assert all(torch.equal(mask, masks[n]) for n, mask in Masks.load(path).tensors.items())
