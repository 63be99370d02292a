"""What cannot work together is one line before an image is read, drawn or encoded, and before a step is trained."""

from pathlib import Path

import pytest
import torch
from conftest import save_vit_and_images, tiny_dit, tiny_pipeline, tiny_sd, tiny_sdxl, tiny_unet
from diffusers import DDPMPipeline, DDPMScheduler

from hf_unlearn import SFRon, UnlearnTrainer
from hf_unlearn.__main__ import main
from hf_unlearn.saliency.masks import Masks
from hf_unlearn.saving.checkpoints import seal

COMMANDS = {  # what would work, without a method
    "ddpm": "ddpm --pretrained_model_name_or_path {f}/ddpm --train_data_dir {f}/grey --forget_class 1",
    "plain": "ddpm --pretrained_model_name_or_path {f}/plain --train_data_dir {f}/grey --forget_class 1",
    "dit": "dit --pretrained_model_name_or_path {f}/dit --train_data_dir {f}/colour --forget_class 1",
    "sd": "sd --pretrained_model_name_or_path {f}/sd --concept church",
    "sdxl": "sd --pretrained_model_name_or_path {f}/sdxl --concept church",
    "classify": "classify --pretrained_model_name_or_path {f}/vit --train_data_dir {f}/grey --forget_class 1",
    "digits": "classify --forget_class 1",
    "default": "ddpm",
}
EVERY = ("ddpm", "dit", "sd", "classify", "digits", "default")
CASES = [
    # ---- of any command
    *((name, "--method ssd --use_lora", "do without --use_lora") for name in EVERY),
    *((name, "--gradient_accumulation_steps 2", "set gradient_accumulation_steps=1") for name in EVERY),
    *((name, "--mask_path {f}/masks.safetensors --use_lora", "an adapter gets no mask") for name in EVERY),
    *((name, "--method finetune --mask_path {f}/masks.safetensors", "leave --mask_path out") for name in EVERY),
    *((name, "--mask_path {f}/nothing", "is not a readable mask file") for name in EVERY),
    *((name, "--mask_path {f}/masks.safetensors --use_mask false", "say the opposite") for name in EVERY),
    *((name, "--mask_path {f}/masks.safetensors", "mask") for name in EVERY),
    *((name, "--resume_from_checkpoint latest", "no checkpoint in") for name in EVERY),
    *((name, "--resume_from_checkpoint {f}/nothing", "does not exist") for name in EVERY),
    *(
        (name, "--resume_from_checkpoint {f}/checkpoint-1 --forget_alpha 3", "was written with options")
        for name in EVERY
    ),
    *((name, "--method ssd --resume_from_checkpoint auto", "takes no steps") for name in EVERY),
    *((name, "--method ssd --target_forget 0.1", "takes no steps") for name in EVERY),
    *((name, "--report_to magic", "magic") for name in EVERY),
    *((name, "--report_to dvclive", "dvclive is not installed") for name in EVERY),
    *((name, "--lr_scheduler magic", "magic") for name in EVERY),
    *((name, "--hub_model_id me/x", "add --push_to_hub") for name in EVERY),
    *((name, "--push_masks", "set push_to_hub too") for name in EVERY),
    # ---- of the method and the model
    ("plain", "--forget_loss match", "needs a model with labels"),
    ("plain", "--bound other", "needs a model with labels"),
    ("ddpm", "--use_lora --lora_select xattn", "no cross attention"),
    ("dit", "--use_lora --lora_select xattn", "no cross attention"),
    ("classify", "--use_lora --lora_select xattn", "no cross attention"),
    ("digits", "--use_lora --lora_select xattn", "no cross attention"),
    ("sd", "--train_method text_encoder --use_lora", "adapters are for the UNet"),
    ("sd", "--train_method text_encoder --method uce", "choose another train_method"),
    ("sdxl", "--train_method text_encoder", "cannot be trained"),
    ("sd", "--train_method selfattn --use_lora --lora_select xattn", "no cross attention"),
    # ---- of the data and the evaluation
    ("ddpm", "--forget_indices 3", "say what to forget with one of"),
    ("ddpm", "--dataset_name user/x", "not both"),
    ("ddpm", "--train_data_dir {f}/nothing", "does not exist"),
    ("default", "--forget_data_dir {f}/grey", "no data"),
    ("dit", "--forget_indices 3", "say what to forget with one of"),
    ("plain", "--classifier_model_name_or_path {f}/vit", "a model with classes"),
    ("sd", "--forget_data_dir {f}/colour --forget_dataset_name user/x", "not both"),
    ("sd", "--retain_data_dir {f}/nothing", "does not exist"),
    ("sd", "--anchor_concept church", "is its own anchor"),
    ("sd", "--eval_prompts {f}/nothing.csv", "nothing.csv"),
    ("sd", "--clip_model {f}/nothing", "nothing"),
    ("sd", "--eval_profile quick --num_eval_images 0", "num_eval_images"),
    ("classify", "--retrained_model {f}/nothing", "does not exist"),
    ("classify", "--validation_data_dir {f}/nothing", "is not a folder"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("early")
    for name, make in {"ddpm": tiny_pipeline, "dit": tiny_dit, "sd": tiny_sd, "sdxl": tiny_sdxl}.items():
        make().save_pretrained(root / name)
    DDPMPipeline(tiny_unet(None), DDPMScheduler(1000)).save_pretrained(root / "plain")
    save_vit_and_images(root)
    Masks({"of.another.model": torch.ones(3) > 0}, {}).save(root / "masks.safetensors")
    checkpoint(root / "checkpoint-1")
    return root


def checkpoint(folder: Path) -> None:
    """A whole checkpoint of a run with sfron's defaults."""
    import json
    from dataclasses import asdict

    from hf_unlearn.saving.export import STATE_FILE

    folder.mkdir()
    (folder / "trainer_state.json").write_text("{}")
    (folder / STATE_FILE).write_text(json.dumps({"method": "sfron", "options": asdict(SFRon())}))
    seal(folder)


@pytest.fixture
def watched(monkeypatch) -> list[str]:
    """Names of what was done that should not have been."""
    done: list[str] = []

    def note(name):
        def noted(*args, **kwargs):
            done.append(name)
            raise RuntimeError(f"{name} was called")

        return noted

    monkeypatch.setattr(UnlearnTrainer, "train", note("train"))
    for module, name in (
        ("hf_unlearn.families.synthesis", "draw_latents"),
        ("hf_unlearn.families.synthesis", "encode_images"),
        ("hf_unlearn.cli.image_sets", "load_images"),
        ("hf_unlearn.cli.image_sets", "encode_images"),
        ("hf_unlearn.cli.image_sets", "digits"),
        ("hf_unlearn.cli.classifier_flags", "load_labelled_images"),
        ("hf_unlearn.training.recipes", "train_classifier"),
        ("hf_unlearn.saliency.ranks", "fisher"),
    ):
        monkeypatch.setattr(f"{module}.{name}", note(name))
    return done


@pytest.mark.parametrize(("command", "flags", "says"), CASES, ids=[f"{c} {f}" for c, f, _ in CASES])
def test_it_is_said_before_anything_is_done(command, flags, says, folder, watched, monkeypatch, capsys, tmp_path):
    words = f"{COMMANDS[command]} {flags}".format(f=folder).split()
    monkeypatch.setattr("sys.argv", ["hf-unlearn", *words, "--output_dir", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        main()
    output, error = capsys.readouterr()
    lines = [line for line in error.splitlines() if "error:" in line]
    assert stop.value.code == 2 and len(lines) == 1 and says in lines[0] and "Traceback" not in error, output + error
    assert not watched
