"""The small flow model of the emoji: its shortcut in training, and that what is saved can be unlearned."""

import torch
from diffusers import AutoencoderTiny
from emoji_forget import ROWS, rows_for
from train_emoji_flow import FlowTraining, build_pipeline
from transformers import CLIPTokenizer

from hf_unlearn.evaluation.emoji import EMOJI_SD
from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline

NAMES = [("noto", "cat"), ("fluent", "gem")]


def training(folder) -> FlowTraining:
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(EMOJI_SD / "tokenizer")
    vae = AutoencoderTiny.from_pretrained(EMOJI_SD / "vae", torch_dtype=torch.float32)
    return FlowTraining(build_pipeline(tokenizer, vae, 64, 2, 2), 20, 0, folder, "one")


@torch.no_grad()
def test_one_weighed_token_stands_for_those_of_t5(tmp_path):
    made = training(tmp_path)
    pipeline = made.pipeline
    made.trained.eval()
    torch.nn.init.normal_(pipeline.transformer.proj_out.weight)
    noisy, times, texts = torch.randn(2, 8, 8, 8), torch.tensor([300.0, 700.0]), ["a noto emoji of a cat", "rocket"]
    embeds, _, pooled, _ = pipeline.encode_prompt(texts, None, None, do_classifier_free_guidance=False)
    whole = pipeline.transformer(noisy, embeds, pooled, times).sample
    assert embeds.shape[1] == 32 + 256 and (embeds[:, 32:] == 0).all()
    assert torch.allclose(made.predicted(noisy, times, texts), whole, atol=1e-4)


def test_a_training_goes_on_and_its_folder_is_a_model(tmp_path):
    latents = torch.randn(2, 3, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    straight = training(tmp_path)
    straight.path = tmp_path / "other.pt"
    straight.run(latents, NAMES, 4, 100)
    training(tmp_path).run(latents, NAMES, 4, 100, last=11)
    resumed = training(tmp_path)
    resumed.resume()
    assert resumed.done == 11
    resumed.run(latents, NAMES, 4, 100)
    one, other = (made.trained.state_dict() for made in (straight, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    resumed.pipeline.to(torch.float16).save_pretrained(tmp_path / "model")
    loaded = load_text_to_image_pipeline(str(tmp_path / "model"))
    image = loaded("a noto emoji of a cat", num_inference_steps=1, output_type="np").images
    assert image.shape == (1, 64, 64, 3) and loaded.tokenizer.model_max_length == 32
    kept = rows_for(str(tmp_path / "model"), list(ROWS))
    assert {ROWS[row][0] for row in ROWS} - {ROWS[row][0] for row in kept} == {"uce"}
