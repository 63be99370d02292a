"""The plan before a run: what it counts, what was timed, and all weights or an adapter by the memory that is free."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import tiny_sd, tiny_sdxl, tiny_unet, tiny_vit

from hf_unlearn import METHODS, SFRon
from hf_unlearn.cli import plan
from hf_unlearn.cli.estimates import memory, outline
from hf_unlearn.cli.flags import LoraFlags
from hf_unlearn.cli.parsing import fitting
from hf_unlearn.cli.stages import Stages
from hf_unlearn.families.text_to_image.objective import trained_names
from hf_unlearn.report.reading import read_record

QUICK = [
    "--num_forget_images",
    "8",
    "--num_retain_images",
    "4",
    "--num_inference_steps",
    "2",
    "--max_train_steps",
    "2",
]
QUICK += ["--eval_profile", "quick"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("sd")
    tiny_sd().save_pretrained(path)
    return path


@pytest.fixture
def free(monkeypatch):
    """`free(bytes)`: so much memory is free."""
    return lambda count: monkeypatch.setattr(plan, "free_bytes", lambda device: count)


@pytest.fixture
def sd(call, folder):
    """`sd(*words)`: what the command prints for the tiny model."""

    def run(*words) -> str:
        code, text, error = call("sd", "--concept", "a church", "--pretrained_model_name_or_path", folder, *words)
        assert code == 0, error
        return text

    return run


def peak_of(folder, mode: str = "masked") -> int:
    needed = memory(outline(str(folder)).train(), mode, SFRon(), 4)
    return max(needed.peak, needed.preparation)


# ---- the lines ----------------------------------------------------------------------------------
def plan_of(text: str) -> list[str]:
    return [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]


def test_a_dry_run_says_the_plan_in_comments(sd, folder, free):
    free(2**34)
    text = sd("--train_method", "xattn", "--learning_rate", "1e-3", "--dry_run")
    assert yaml.safe_load(text)["train_method"] == "xattn"
    unet = outline(str(folder))
    every, chosen = sum(p.numel() for p in unet.parameters()), trained_names(unet, "xattn")
    trained = sum(p.numel() for name, p in unet.named_parameters() if name in chosen)
    lines = plan_of(text)
    assert lines[0].startswith(f"plan: sfron trains {trained:,} of {every:,} weights ({trained / every:.0%})")
    assert lines[1] == "  strength: learning rate 0.001"
    assert "64 forget images and 128 retain images" in lines[2] and "the unlearned model 80 images" in lines[3]
    assert "at most 300 outer steps, each of 3 batches of 4" in lines[4]
    assert "16.00 GiB are free (cpu): fits" in lines[5]


def test_what_does_not_fit_is_said(sd, free):
    free(1000)
    assert "does not fit: the Fisher pass and the training" in sd("--train_method", "full", "--dry_run")


@pytest.mark.parametrize("command", ["ddpm", "classify"])
def test_the_shipped_models_need_no_flag(call, command, tmp_path):
    code, text, error = call(command, "--forget_class", "3", "--dry_run", "--output_dir", tmp_path)
    lines = plan_of(text)
    assert code == 0 and "(100%)" in lines[0] and "without a learning rate" in lines[1], error
    assert lines[-1].endswith("fits") and not os.listdir(tmp_path)
    for flags, held in (([], False), (["--use_mask", "true"], True), (["--learning_rate", "1e-4"], True)):
        _, text, _ = call(command, "--forget_class", "3", "--dry_run", "--output_dir", tmp_path, *flags)
        assert ("those in the mask" in text) == (held or command != "classify")


def test_a_model_of_the_hub_is_not_asked_for(call):
    code, text, _ = call("sd", "--concept", "a cat", "--pretrained_model_name_or_path", "some/model", "--dry_run")
    assert code == 0 and "known once the model is loaded" in text


def test_every_method_has_a_plan(call):
    for name in fitting(("diffusion",)):
        if (method := METHODS[name]).family in ("", "diffusion"):
            code, text, error = call("ddpm", "--forget_class", "3", "--method", name, "--dry_run")
            assert code == 0 and f"plan: {name} " in text, error
            assert "that of its formula" in text if not method.trains else "strength: " in text


def test_a_sketch_takes_no_memory_and_trains_the_same():
    for network in (tiny_unet(), tiny_vit(), tiny_sdxl().unet):
        first = next(network.parameters()).requires_grad_(False)
        drawn = plan.sketch(network)
        assert all(t.is_meta for t in (*drawn.parameters(), *drawn.buffers()))
        wanted = {n: (p.shape, p.requires_grad) for n, p in network.named_parameters()}
        assert {n: (p.shape, p.requires_grad) for n, p in drawn.named_parameters()} == wanted
        assert not first.is_meta


def test_a_network_that_does_not_run_without_weights_is_said():
    class Odd(torch.nn.Linear):
        config = SimpleNamespace(sample_size=2, in_channels=3)

        def forward(self, *args, **values):
            return self.weight.sum().item()

    run = SimpleNamespace(
        method=SFRon(),
        lora=LoraFlags(),
        side=None,
        has_masks=True,
        objective=None,
        training=SimpleNamespace(offload=False, train_batch_size=2, mask_path=None),
    )
    found = plan.outlook(plan.sketch(Odd(2, 3)), run, plan.Room("cpu", 100))
    assert (found.weights, found.trained, found.needed) == (9, 9, None)
    assert found.why_not.startswith("not estimated, since this network does not run without weights (")


def test_a_text_encoder_is_counted_and_not_measured(sd, folder, tmp_path):
    text = sd("--train_method", "text_encoder", "--output_dir", tmp_path, *QUICK)
    count = sum(p.numel() for p in tiny_sd().text_encoder.parameters())
    assert f"plan: sfron trains {count:,} of {count:,} weights" in text
    assert "memory: not estimated for a text encoder; " in text


# ---- all weights, or an adapter ------------------------------------------------------------------
def test_an_adapter_is_chosen_aloud_where_the_weights_do_not_fit(sd, folder, free):
    needed = peak_of(folder)
    free(needed - 1)
    text = sd("--dry_run")
    assert yaml.safe_load(text)["use_lora"] is None  # --config takes back what was asked, not what was found
    assert f"# all weights need {needed / 2**20:.1f} MiB, {(needed - 1) / 2**20:.1f} MiB are free: an adapter" in text
    assert "--train_method full --use_lora false insists" in text and "trains an adapter of " in text
    assert "on all layers" in plan_of(text)[1]
    free(needed)
    assert "adapter" not in "".join(plan_of(sd("--dry_run")))


@pytest.mark.parametrize(
    "flags",
    [
        ["--train_method", "full"],
        ["--use_lora", "false"],
        ["--train_method", "xattn"],
        ["--use_lora"],
        ["--method", "salun"],
        ["--method", "uce"],
    ],
)
def test_who_says_what_is_trained_gets_it(sd, free, flags):
    free(1000)
    text = sd(*flags, "--dry_run")
    assert "are free: an adapter" not in text
    assert ("adapter of at most" in text) == ("--use_lora" == flags[-1])


def test_sharded_weights_are_left_alone(sd, free, monkeypatch):
    free(1000)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    text = sd("--dry_run")
    assert "an adapter" not in text and "the weights are cut over" in text


def test_a_run_trains_the_adapter_and_a_repeated_one_keeps_to_it(sd, free, tmp_path):
    free(1000)
    text = sd("--output_dir", tmp_path, *QUICK)
    assert text.index("are free: an adapter on all layers is trained") < text.index("[1/5] data")
    assert (tmp_path / "pytorch_lora_weights.safetensors").exists() and not (tmp_path / "unet").exists()
    adapter = read_record(tmp_path).adapter
    assert adapter is not None
    free(2**34)
    again = sd("--output_dir", tmp_path, *QUICK)
    assert "[4/5] save (finished before)" in again and "trains an adapter" in again
    took = json.loads((tmp_path / "stages.json").read_text())["seconds"]
    assert set(took) == {"data", "masks", "unlearn", "save", "evaluate"}
    assert f"the last run in {tmp_path} took data " in again and "unlearn " in again


# ---- times ----------------------------------------------------------------------------------------
def test_stages_keep_their_times(tmp_path, monkeypatch):
    clock = iter([0.0, 2.0, 2.0, 5.0, 5.0, 9.0])
    monkeypatch.setattr("hf_unlearn.cli.stages.time.perf_counter", lambda: next(clock))
    stages = Stages(tmp_path, ["data", "unlearn", "evaluate"])
    assert stages.took == {}
    for name in stages.names:
        stages.begin(name)
    stages.close()
    later = Stages(tmp_path, stages.names)
    assert later.took == {"data": 2.0, "unlearn": 3.0, "evaluate": 4.0}
    later.begin("unlearn", "finished before")
    later.close()
    assert Stages(tmp_path, stages.names).took["unlearn"] == 3.0


@pytest.mark.parametrize("content", ['{"seconds": 3}', '{"seconds": {"data": "long", "unlearn": -1}}', "{torn", "[]"])
def test_times_of_another_kind_are_no_times(tmp_path, content):
    (tmp_path / "stages.json").write_text(content)
    stages = Stages(tmp_path, ["data", "unlearn"])
    assert stages.took == {} and stages.chosen("weights", 1) is None


def test_a_choice_holds_for_its_question(tmp_path):
    first = Stages(tmp_path, ["data"])
    first.choose("weights", ["model", 4], "why")
    assert not os.listdir(tmp_path)  # the input may still be refused, and then nothing is left behind
    first.keep()
    later = Stages(tmp_path, ["data"])
    assert later.chosen("weights", ["model", 4]) == "why" and later.chosen("weights", ["model", 8]) is None


def test_an_interrupted_run_keeps_to_its_choice(sd, free, tmp_path, monkeypatch):
    """All weights were chosen before the training was stopped; less memory is free afterwards."""
    free(2**34)
    with monkeypatch.context() as stopping:
        stopping.setattr("hf_unlearn.training.trainer.UnlearnTrainer.train", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            sd("--output_dir", tmp_path, *QUICK)
    free(1000)
    text = sd("--output_dir", tmp_path, *QUICK)
    assert "an adapter" not in text and (tmp_path / "unet").exists()
