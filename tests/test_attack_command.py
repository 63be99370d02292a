"""hf-unlearn attack: from a run's folder to attacks on its model, in the record, on the card and on the page."""

import json

import pytest
import torch
from attack_cases import changed_sd
from conftest import (
    save_classifier,
    save_vit_and_images,
    tiny_clip,
    tiny_dit,
    tiny_pipeline,
    tiny_sd,
    tiny_unet,
    tiny_vit,
)
from diffusers import DDIMScheduler, DDPMPipeline
from PIL import Image
from records import classifier, generator, painter, run_record, share

from hf_unlearn import add_lora, encode_prompts
from hf_unlearn.attacks import running
from hf_unlearn.cli.attacks import attacking
from hf_unlearn.cli.attacks.case import load_case
from hf_unlearn.cli.attacks.flags import AttackFlags
from hf_unlearn.common.weights import model_digest
from hf_unlearn.evaluation.metric import is_attack
from hf_unlearn.families import text_to_image_objective
from hf_unlearn.families.description import Anchor, Description
from hf_unlearn.report.badge import BADGE_FILE
from hf_unlearn.report.reading import read_record
from hf_unlearn.report.record import BaseModel
from hf_unlearn.saliency.ranks import choose_lora
from hf_unlearn.saving.adapters import save_adapter

PROMPTS = ("a photo of a rocket", "a rocket, detailed")
SHORT = ["--samples", "2", "--retain_prompts", "a dog", "a house", "a tree"]
DRAWN = {"num_inference_steps": 2, "guidance_scale": 1.5, "height": 16, "width": 16}


def painted(folder, digest=True, **figures):
    """The folder of a text-to-image run that Python made, beside its original."""
    tiny_sd().save_pretrained(folder / "base")
    changed_sd().save_pretrained(folder / "run")
    record = painter(concept_share_latents=(None, {**share(0.0, 32), "details": DRAWN}), **figures)
    record.command, record.log = None, []
    record.base_model = BaseModel("base", False, weights=model_digest(tiny_sd()) if digest else None)
    anchors = [Anchor(prompt, "a sailboat") for prompt in PROMPTS]
    record.objective = Description(train_method="xattn", anchors=anchors)
    record.write(folder / "run")
    return folder / "run"


def found_in(folder):
    after = read_record(folder).figures["after"]
    return {name: metric for name, metric in after.items() if is_attack(name)}


def test_a_text_to_image_run(call, tmp_path):
    """Two attacks: the record, the card, the badge and the page that is there say what they found."""
    run = painted(tmp_path)
    assert call("report", run)[0] == 0 and "It was not attacked" in (run / "report.html").read_text()
    code, text, error = call("attack", run, "--attacks", "wordings", "completion", *SHORT)
    assert code == 0, error
    found = found_in(run)
    assert list(found) == ["recovered_wordings", "recovered_completion"]
    for metric in found.values():
        details = metric.details
        assert metric.samples == 4 and set(details["per_seed"]) == {"0", "1"} and details["target"] == "a rocket"
        assert details["ceiling"]["samples"] == details["positive"]["samples"] == 1  # one seed, and half of its images
        assert details["negative"] is None and 0 <= details["separable"] <= 1
        assert metric.details["budget"] in text
    for place in (run / "report.html", run / "README.md"):
        said = place.read_text()
        assert ">wordings<" in said.replace("| wordings ", ">wordings<") and "was not attacked" not in said
    record = read_record(run)
    assert record.outcome.state in (run / BADGE_FILE).read_text() and text.startswith(record.outcome.line)
    assert set(record.figures["after"]) == {"concept_share_latents", *found}


def test_an_attack_that_was_stopped_goes_on_and_comes_to_the_same(call, tmp_path, monkeypatch):
    """Straight, and stopped after three results: the same record; an equal call computes nothing."""
    words = ["--attacks", "wordings", "samplers", *SHORT]
    straight, stopped = (painted(tmp_path / name) for name in ("straight", "stopped"))
    assert call("attack", straight, *words)[0] == 0
    write, count = running.Results.write, []

    def limited(self, *arguments):
        if len(count) == 3:
            raise KeyboardInterrupt
        count.append(1)
        write(self, *arguments)

    monkeypatch.setattr(running.Results, "write", limited)
    assert call("attack", stopped, *words)[0] == 130 and not found_in(stopped) and len(count) == 3
    monkeypatch.setattr(running.Results, "write", write)
    assert call("attack", stopped, *words)[0] == 0
    assert found_in(stopped) == found_in(straight)
    monkeypatch.setattr(running.Results, "write", lambda *_: pytest.fail("computed again"))
    assert call("attack", stopped, *words)[0] == 0


@pytest.mark.parametrize("make", [tiny_pipeline, tiny_dit])
def test_a_class_conditional_run(call, tmp_path, make):
    """The original draws what no folder gives; the classifier and the retrained model are those that are named."""
    for seed, name in enumerate(("base", "run", "retrained")):
        make(seed).save_pretrained(tmp_path / name)
    save_vit_and_images(tmp_path)
    record = generator(forget_accuracy=((1.0, 100), (0.0, 100)), retain_accuracy=((1.0, 100), (1.0, 100)))
    record.forgotten, record.command = "class 1", None
    record.family = "NoisePrediction" if make is tiny_pipeline else "DiTPrediction"
    record.base_model = BaseModel("base", False, weights=model_digest(make(0)))
    record.write(tmp_path / "run")
    words = ["--samples", "2", "--classifier_model_name_or_path", tmp_path / "vit"]
    words += ["--retrained_model", tmp_path / "retrained"]
    code, _, error = call("attack", tmp_path / "run", "--attacks", "class_null", "class_guidance", *words)
    assert code == 0, error
    for metric in found_in(tmp_path / "run").values():
        details = metric.details
        assert details["target"] == details["ceiling"]["target"] == details["negative"]["target"] == "class 1"
        assert details["positive"]["target"] == "class 2" and details["reader"] == "vit" and metric.samples == 4


TRAINED = ["--max_train_steps", "2", "--learning_rate", "1e-3", "--seed", "0", "--attack", "quick"]


@pytest.mark.parametrize("forget", [["--forget_class", "1"], ["--forget_fraction", "0.5"]])
def test_a_classifier_is_attacked_when_it_has_forgotten_and_again(call, tmp_path, monkeypatch, forget):
    """`--attack quick` and the command after it find the same, and the second one computes nothing."""
    save_vit_and_images(tmp_path)
    save_classifier(tiny_vit(5), tmp_path / "retrained")
    data = ["--train_data_dir", tmp_path / "grey", "--validation_data_dir", tmp_path / "grey"]
    words = ["--pretrained_model_name_or_path", tmp_path / "vit", *data, *forget, "--use_cpu", *TRAINED]
    words += ["--retrained_model", tmp_path / "retrained", "--train_batch_size", "4", "--disable_tqdm", "True"]
    code, text, error = call("classify", *words, "--output_dir", tmp_path / "run")
    assert code == 0, error
    found = found_in(tmp_path / "run")
    assert set(found) == {"recovered_iam", "recovered_residual", "relearning_classifier"}
    assert "not attacked by rmia: it needs 4 models" in text and "] attack" in text and "attack: the short" in text
    assert (tmp_path / "run" / "README.md").read_text().count("| iam ") == 1
    more = [*data, "--original", tmp_path / "vit", "--json"]
    code, text, _ = call("attack", tmp_path / "run", *more, "--attacks", "relearning_classifier")
    assert code == 0 and json.loads(text)["notes"] == [
        "the run's retrained model retrained is not here: --retrained_model says where it is"
    ]
    monkeypatch.setattr(running.Results, "write", lambda *_: pytest.fail("computed again"))
    code, text, error = call("attack", tmp_path / "run", *more, "--retrained_model", tmp_path / "retrained")
    assert code == 0, error
    assert json.loads(text)["attacks"] == {name: json.loads(json.dumps(m.as_dict())) for name, m in found.items()}


def test_a_ddpm_run_with_an_attack_keeps_what_it_found(call, tmp_path):
    """The run's own classifier, sampler and class, and none of its flags given again."""
    save_vit_and_images(tmp_path)
    tiny_pipeline().save_pretrained(tmp_path / "base")
    words = ["--pretrained_model_name_or_path", tmp_path / "base", "--train_data_dir", tmp_path / "grey"]
    words += ["--forget_class", "1", "--classifier_model_name_or_path", tmp_path / "vit", "--num_inference_steps", "2"]
    words += ["--eval_samples_per_class", "2", "--train_batch_size", "2", *TRAINED]
    code, text, error = call("ddpm", *words, "--output_dir", tmp_path / "run")
    assert code == 0, error
    found = found_in(tmp_path / "run")
    assert list(found) == ["recovered_class_null", "recovered_class_guidance", "recovered_class_embedding"]
    assert {metric.samples for metric in found.values()} == {30}  # 15 from each of two seeds
    record = read_record(tmp_path / "run")
    assert record.base_model.weights == model_digest(tiny_pipeline())
    assert "[5/5] attack" in text and text.index("| model") < text.index("| attack")


def test_attack_changes_nothing_of_what_was_trained(call, tmp_path, monkeypatch):
    """A run of Stable Diffusion that is repeated with --attack does not train again, and keeps the attacks after."""
    tiny_sd().save_pretrained(tmp_path / "base")
    words = [
        "sd",
        "--pretrained_model_name_or_path",
        tmp_path / "base",
        "--concept",
        "a rocket",
        "--eval_profile",
        "quick",
    ]
    words += [
        "--num_forget_images",
        "8",
        "--num_retain_images",
        "4",
        "--num_inference_steps",
        "2",
        "--max_train_steps",
    ]
    words += ["1", "--train_batch_size", "2", "--learning_rate", "1e-3", "--train_method", "xattn", "--output_dir"]
    words += [tmp_path / "run"]
    code, _, error = call(*words)
    assert code == 0 and not found_in(tmp_path / "run"), error
    chosen = ["--attacks", "wordings", "--samples", "2"]
    code, _, error = call("attack", tmp_path / "run", *chosen, "--original", tmp_path / "base")
    assert code == 0, error
    found = found_in(tmp_path / "run")
    assert list(found) == ["recovered_wordings"] and found["recovered_wordings"].details["target"] == "a rocket"
    monkeypatch.setattr(attacking, "attack_run", lambda record, *_: (record, ["nothing was attacked"]))
    code, text, _ = call(*words, "--attack", "full")
    assert code == 0 and "finished before" in text and "nothing was attacked" in text
    assert "attack: all attacks" in text and "[6/6] attack" in text and "| wordings " in text
    assert found_in(tmp_path / "run") == found


def test_an_adapter_is_attacked_in_the_weights(call, tmp_path):
    """Merging the original back and training need plain layers, and the original has none of the adapter."""
    pipeline = tiny_sd()
    pipeline.save_pretrained(tmp_path / "base")
    prompts = encode_prompts(pipeline, ["a rocket", "a sailboat"])
    objective = text_to_image_objective(pipeline, prompts, {"a rocket": "a sailboat"})
    add_lora(objective, choose_lora(objective, None, None, "all", rank=2))
    for name, p in objective.network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(0))
    save_adapter(objective, tmp_path / "run")
    record = read_record(painted(tmp_path / "other"))
    record.library_name = "peft"
    record.write(tmp_path / "run")
    chosen = ["merge_back", "quantised_int8", "relearning_steps_lora"]
    code, _, error = call("attack", tmp_path / "run", *SHORT, "--attacks", *chosen)
    assert code == 0, error
    assert set(found_in(tmp_path / "run")) == {
        "recovered_merge_back",
        "recovered_quantised_int8",
        "relearning_steps_lora",
    }
    case = load_case(record, tmp_path / "run", AttackFlags())
    noisy, step, states = torch.randn(1, 4, 8, 8), torch.tensor([5]), torch.randn(1, 3, 16)
    with torch.no_grad():
        ours, theirs, before = (
            network(noisy, step, states).sample for network in (case.unlearned.unet, objective.network, tiny_sd().unet)
        )
    assert torch.allclose(ours, theirs, atol=1e-5) and not torch.allclose(ours, before, atol=1e-3)
    assert all(p.requires_grad for p in case.unlearned.unet.parameters())


def test_an_unconditional_run_is_sampled_as_it_is(call, tmp_path):
    """It cannot be asked for the class, so pictures of it must be given, and there is no positive control."""
    for seed, name in enumerate(("base", "run")):
        DDPMPipeline(tiny_unet(None, seed), DDIMScheduler(1000)).save_pretrained(tmp_path / name)
    save_vit_and_images(tmp_path)
    record = generator(forget_accuracy=((1.0, 100), (0.0, 100)))
    record.base_model, record.command, record.loads_with = BaseModel("base", False), None, ["DDPMPipeline"]
    record.write(tmp_path / "run")
    words = ["--classifier_model_name_or_path", tmp_path / "vit", "--forget_class", "1", "--samples", "2"]
    code, _, error = call("attack", tmp_path / "run", *words)
    assert code == 2 and "cannot be asked for pictures of one: give some with --images" in error
    given = ["--images", tmp_path / "grey" / "1"]
    code, text, error = call("attack", tmp_path / "run", *words, *given, "--attacks", "class_null")
    assert code == 0, error
    assert found_in(tmp_path / "run")["recovered_class_null"].details["positive"] is None
    code, _, error = call("attack", tmp_path / "run", *words, *given, "--attacks", "class_embedding")
    assert code == 2 and "the attack class_embedding cannot be made: the model has no classes" in error


@pytest.mark.parametrize("listed", [None, "a cat\na boat\na photo of a rocket\n"])
def test_the_neighbours_of_a_concept_are_looked_at(call, tmp_path, listed):
    """Those of a file, or the nearest ones; the page draws both matrices, and no verdict changes."""
    run, given = painted(tmp_path), ["--neighbours"]
    if listed is not None:
        (tmp_path / "near.txt").write_text(listed)
        given.append(tmp_path / "near.txt")
    assert call("report", run)[0] == 0
    code, _, error = call("attack", run, *SHORT, "--attacks", "wordings", *given)
    assert code == 0, error
    figures = read_record(run).figures
    before, after = (figures[model]["neighbours_kept_share"] for model in ("before", "after"))
    count = 8 if listed is None else 2
    asked = after.details["asked"]
    assert asked[0] == PROMPTS[0] and len(asked) == count + 1 and after.samples == 8 * count
    assert listed is None or asked[1:] == ["a cat", "a boat"]
    for metric in (before, after):
        assert len(metric.details["matrix"]) == count + 1
        assert all(sum(row) == pytest.approx(1.0) for row in metric.details["matrix"])
        diagonal = [row[i] for i, row in enumerate(metric.details["matrix"])][1:]
        assert metric.value == pytest.approx(sum(diagonal) / count)
    page = (run / "report.html").read_text()
    assert page.count('class="chart map"') == 2 and f"{asked[-1]} {count + 1}</text>" in page


def test_the_neighbours_of_a_class_are_looked_at(call, tmp_path):
    for seed, name in enumerate(("base", "run")):
        tiny_pipeline(seed).save_pretrained(tmp_path / name)
    save_vit_and_images(tmp_path)
    record = generator(forget_accuracy=((1.0, 100), (0.0, 100)))
    record.base_model, record.command, record.forgotten = BaseModel("base", False), None, "class 1"
    record.write(tmp_path / "run")
    words = ["--classifier_model_name_or_path", tmp_path / "vit", "--attacks", "class_null", "--samples", "2"]
    code, _, error = call("attack", tmp_path / "run", *words, "--neighbours")
    assert code == 0, error
    metric = read_record(tmp_path / "run").figures["after"]["neighbours_kept_share"]
    assert metric.details["asked"][0] == "1" and set(metric.details["asked"]) == {"0", "1", "2", "3"}
    assert metric.samples == 24 and "vit" in metric.definition
    (tmp_path / "near.txt").write_text("3\n")
    assert call("attack", tmp_path / "run", *words, "--neighbours", tmp_path / "near.txt")[0] == 0
    metric = read_record(tmp_path / "run").figures["after"]["neighbours_kept_share"]
    assert metric.details["asked"] == ["1", "3"]


# ---- what cannot work ------------------------------------------------------------------------
@pytest.fixture(scope="module")
def run_of_rockets(tmp_path_factory):
    return painted(tmp_path_factory.mktemp("painted"))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--attacks", "magic"], "attack 'magic' is none on this model: choose from wordings, samplers"),
        (["--attacks", "class_null"], "attack 'class_null' is none on this model"),
        (["--seeds", "1", "1"], "give at least two different ones"),
        (["--samples", "0"], "samples must be"),
        (["--images", "nowhere"], "--images nowhere is not a folder"),
        (["--images", "EMPTY"], "no image and no parquet file in"),
        (["--original", "nowhere"], "nowhere"),
        (["--original", "OTHER"], "has other weights than the model that the run started from"),
        (["--original", "UNET"], "has other weights than the model that the run started from"),
        (["--retrained_model", "UNET"], "retrained model 1 is a ClassConditionalDDPMPipeline, the run's model a"),
        (["--clip_model", "nowhere"], "nowhere"),
        (["--neighbours", "nowhere"], "--neighbours nowhere is not a file"),
        (["--anchor_concept", "a boat"], "--anchor_concept goes with --concept"),
        (["--retain_prompts", "a dog"], "give at least two --retain_prompts"),
        (["--retain_prompts"], "expected at least one argument"),
        ([], "the record does not say what stayed: give at least two --retain_prompts"),
    ],
)
def test_what_cannot_work_is_one_line_before_anything_is_drawn(call, run_of_rockets, tmp_path, words, problem):
    (tmp_path / "EMPTY").mkdir()
    tiny_sd(seed=3).save_pretrained(tmp_path / "OTHER")
    tiny_pipeline().save_pretrained(tmp_path / "UNET")
    before = (run_of_rockets / "unlearning_report.json").read_bytes()
    given = [tmp_path / word if word.isupper() else word for word in words]
    kept = [] if not words or "--retain_prompts" in words else SHORT
    code, text, error = call("attack", run_of_rockets, *kept, *given)
    line = error.strip().splitlines()[-1]
    assert code == 2 and problem in line and line.startswith("hf-unlearn") and not text, error
    assert not (run_of_rockets / "cache").exists() and not (run_of_rockets / "attacks").exists()
    assert (run_of_rockets / "unlearning_report.json").read_bytes() == before


def test_a_run_whose_original_is_gone(call, tmp_path):
    run = painted(tmp_path)
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    code, _, error = call("attack", run, *SHORT)
    assert code == 2 and "'base', is not here: say where it is with --original" in error
    code, _, error = call("attack", run, *SHORT, "--attacks", "wordings", "--original", tmp_path / "elsewhere")
    assert code == 0, error


def test_what_is_no_run(call, tmp_path):
    code, _, error = call("attack", tmp_path)
    assert code == 2 and "holds no unlearning_report.json" in error
    run_record(family="Flow", loads_with=["X"]).write(tmp_path)
    code, _, error = call("attack", tmp_path)
    assert code == 2 and "there are no attacks on models of Flow" in error


@pytest.mark.parametrize("words", [["attack", "RUN"], ["sd", "--concept", "a cat", "--attack", "quick"]])
def test_several_processes_are_refused(call, run_of_rockets, tmp_path, monkeypatch, words):
    monkeypatch.setenv("WORLD_SIZE", "2")
    tiny_sd().save_pretrained(tmp_path / "base")
    more = {"sd": ["--pretrained_model_name_or_path", tmp_path / "base", "--output_dir", tmp_path / "out"]}
    given = [run_of_rockets if word == "RUN" else word for word in words]
    code, _, error = call(*given, *more.get(words[0], []))
    assert code == 2 and "attacks run in one process, and 2 were launched" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["ddpm", "--train_data_dir", "DATA", "--forget_class", "1"], "set --classifier_model_name_or_path"),
        (["ddpm", "--train_data_dir", "DATA", "--forget_indices", "1"], "name it with --forget_class"),
        (["dit", "--train_data_dir", "DATA", "--forget_class", "1"], "set --classifier_model_name_or_path"),
    ],
)
def test_a_run_that_could_not_be_attacked_is_refused_before_it_begins(call, tmp_path, words, problem):
    (tmp_path / "DATA").mkdir()
    given = [tmp_path / word if word.isupper() else word for word in words]
    given += ["--pretrained_model_name_or_path", tmp_path / "base", "--output_dir", tmp_path / "out"]
    code, _, error = call(*given, "--attack", "quick")
    assert code == 2 and problem in error and not (tmp_path / "out").exists()


def test_a_class_without_a_classifier_or_enough_pictures(call, tmp_path):
    for seed, name in enumerate(("base", "run")):
        tiny_pipeline(seed).save_pretrained(tmp_path / name)
    save_vit_and_images(tmp_path)
    record = generator(forget_accuracy=((1.0, 100), (0.0, 100)))
    record.base_model, record.command, record.forgotten = BaseModel("base", False), None, "class cat (number 1)"
    record.write(tmp_path / "run")
    assert "set --classifier_model_name_or_path" in call("attack", tmp_path / "run")[2]
    words = ["--classifier_model_name_or_path", tmp_path / "vit", "--images", tmp_path / "grey" / "1"]
    code, _, error = call("attack", tmp_path / "run", *words)
    assert code == 2 and "holds 3 images, and an attack takes 20" in error
    code, _, error = call("attack", tmp_path / "run", *words, "--attacks", "class_null", "--samples", "2")
    assert code == 0, error
    details = found_in(tmp_path / "run")["recovered_class_null"].details
    assert details["target"] == "class 1" and details["negative"] is None


def test_pictures_and_clip_read_what_is_drawn(call, tmp_path):
    """Pictures of the concept with their captions, and a CLIP model in the place of latents."""
    run = painted(tmp_path)
    folder = tmp_path / "rockets"
    folder.mkdir()
    rows = []
    for number in range(3):
        Image.new("RGB", (20, 20), (40 * number, 0, 0)).save(folder / f"{number}.png")
        rows.append(json.dumps({"file_name": f"{number}.png", "text": f"a rocket of kind {number}"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    tiny_clip(tmp_path / "clip")
    words = [*SHORT, "--images", folder, "--clip_model", tmp_path / "clip", "--attacks", "wordings"]
    code, _, error = call("attack", run, *words)
    assert code == 0, error
    details = found_in(run)["recovered_wordings"].details
    assert "clip" in details["reader"] and "separable" not in details


def test_a_concept_never_learnt_is_the_negative_control(call, tmp_path):
    """CLIP reads it, pictures of it are given; without them, or without CLIP, nothing is drawn."""
    run, folder = painted(tmp_path), tmp_path / "zeppelins"
    folder.mkdir()
    Image.new("RGB", (20, 20), (90, 9, 9)).save(folder / "0.png")
    tiny_clip(tmp_path / "clip")
    words = [*SHORT, "--attacks", "wordings", "--never_concept", "a zeppelin"]
    code, _, error = call("attack", run, *words)
    assert code == 2 and "--never_concept and --never_images go together" in error
    words += ["--never_images", folder]
    code, _, error = call("attack", run, *words)
    assert code == 2 and "cannot know what it never learnt: set --clip_model" in error
    code, _, error = call("attack", run, *words, "--clip_model", tmp_path / "clip")
    assert code == 0, error
    negative = found_in(run)["recovered_wordings"].details["negative"]
    assert negative["target"] == "a zeppelin" and negative["samples"] == 2  # as many as of the forgotten
    words += ["--clip_model", tmp_path / "clip", "--retrained_model", tmp_path / "base"]
    code, _, error = call("attack", run, *words)
    assert code == 2 and "are both the negative control" in error


@pytest.mark.parametrize("fails", [False, True])
def test_a_detector_reads_unsafe_concepts(call, tmp_path, monkeypatch, fails):
    """What stayed is read by the latents; a detector that fails is no safe picture."""
    from hf_unlearn.evaluation import safety

    def find(picture):
        if fails:
            raise OSError("no model")
        return {"a": 1.0}

    made = safety.Detector("test", find, 0.5, "test 1.0", ("a",))
    monkeypatch.setitem(safety.DETECTORS, "open_nsfw", lambda: made)
    run = painted(tmp_path)
    words = [*SHORT, "--concept", "nudity", "--safety_detector", "open_nsfw", "--attacks", "wordings"]
    code, _, error = call("attack", run, *words)
    if fails:
        assert code == 2 and "test failed on an image: OSError: no model" in error
        return
    assert code == 0, error
    metric = found_in(run)["recovered_wordings"]
    assert metric.value == 1.0 and metric.details["reader"] == "test at 0.5" and "separable" not in metric.details
    assert metric.details["positive"]["target"] == "a dog"


def test_the_share_that_comes_back_is_a_limit_of_check(call, tmp_path):
    """What borrows the original is left out, steps of relearning too, and a run without attacks fails."""
    from scenarios import SCENARIOS

    SCENARIOS["the original's first steps and its weights bring it back"][0].write(tmp_path)
    assert call("check", tmp_path, "--max-recovered", "0.05")[0] == 0
    SCENARIOS["a soft prefix brings it back"][0].write(tmp_path)
    code, text, _ = call("check", tmp_path, "--max-recovered", "0.05", "--require-forgotten")
    assert code == 1 and "fail  max-recovered      recovered_soft_prefix 0.7917 > 0.05" in text
    assert "fail  require-forgotten  the run is FORGOTTEN, NOT REMOVED" in text
    SCENARIOS["good in latents"][0].write(tmp_path)
    code, text, _ = call("check", tmp_path, "--max-recovered", "1")
    assert code == 1 and "no attack was measured: run hf-unlearn attack" in text


def test_a_classifier_without_its_command_is_left_to_python(call, tmp_path):
    save_vit_and_images(tmp_path)
    save_classifier(tiny_vit(1), tmp_path / "run")
    record = classifier(**{"forget_accuracy": ((1.0, 126), (0.9, 126))})
    record.base_model, record.command = BaseModel("vit", False), None
    record.write(tmp_path / "run")
    code, _, error = call("attack", tmp_path / "run")
    assert code == 2 and "no command made the run, so its forget samples are not known" in error
