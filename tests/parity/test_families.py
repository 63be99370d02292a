"""Which family a model is of is asked in one place; what is of none is refused in one line."""

import re
from pathlib import Path

import pytest
import torch
from conftest import tiny_dit, tiny_pipeline, tiny_sd, tiny_sdxl, tiny_unet, tiny_vit
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline
from families import family_case

import hf_unlearn.families
from hf_unlearn import Classification, DiTPrediction, NoisePrediction
from hf_unlearn.families import FAMILIES, DDPMSchedule, Objective, family_of, objective_for, prepare_family
from hf_unlearn.families.load import load_model

MODELS = {
    "classifier": tiny_vit,
    "ddpm": tiny_pipeline,
    "dit": tiny_dit,
    "text_to_image": tiny_sd,
}
OBJECTIVES = {"classifier": Classification, "ddpm": NoisePrediction, "dit": DiTPrediction}


@pytest.mark.parametrize("name", MODELS)
def test_each_model_is_of_one_family_which_makes_its_objective(tmp_path, name):
    model = MODELS[name]()
    assert [family.name for family in FAMILIES if family.holds(model)] == [name]
    if name in OBJECTIVES:
        objective = objective_for(model)
        assert type(objective) is OBJECTIVES[name] and objective_for(objective) is objective
    else:
        with pytest.raises(ValueError, match="which prompts"):
            objective_for(model)
    model.save_pretrained(tmp_path)
    assert prepare_family(load_model(str(tmp_path))[0]) is prepare_family(model)


def test_pipelines_around_a_unet2d_have_many_names():
    scheduler = DDIMScheduler(1000)
    for pipeline in (DDPMPipeline(tiny_unet(None), scheduler), DDIMPipeline(tiny_unet(None), scheduler)):
        assert prepare_family(pipeline).name == "ddpm"
    assert prepare_family(tiny_sdxl()).name == "text_to_image"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: "user/name", "'user/name' is a name: load what it names, and pass a transformers image classifier"),
        (lambda: Path("folder"), "'folder' is a name"),
        (tiny_unet, "UNet2DModel is not a model that can be unlearned: pass .*DiTPipeline.*, or an Objective"),
        (lambda: tiny_sd().vae, "AutoencoderKL is not a model"),
        (lambda: None, "NoneType is not a model"),
    ],
    ids=["name", "path", "network", "vae", "none"],
)
def test_what_is_of_no_family_is_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        objective_for(make())
    assert "\n" not in str(error.value) and family_of(make()) is None


@pytest.mark.parametrize("family", ["unet", "dit", "sd", "sdxl", "text_encoder"])
def test_a_denoiser_is_probed_before_its_data_is_checked(family):
    objective: Objective = family_case(family)[0]
    args, kwargs = objective.probe(torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = objective.network(*args, **kwargs)
    assert all(value.isfinite().all() for value in output.values() if torch.is_tensor(value))


def test_a_classifier_says_that_it_needs_an_image_first():
    with pytest.raises(ValueError, match="size of an image is not known yet: call check"):
        Classification(tiny_vit()).probe(torch.Generator())


def test_timesteps_are_drawn_in_pairs_unless_one_says_otherwise():
    """One default, True, for each objective."""
    found = {name: family_case(name)[0].antithetic for name in ("unet", "dit", "sd", "sdxl", "text_encoder")}
    assert set(found.values()) == {True}


def test_the_schedule_belongs_to_the_objective_and_is_not_saved():
    objective = NoisePrediction(tiny_pipeline())
    assert isinstance(objective.schedule, DDPMSchedule)
    assert "schedule.alphas" in dict(objective.named_buffers())
    assert not any("schedule" in name for name in objective.state_dict())
    pairs = objective.schedule.draw(7, torch.Generator().manual_seed(0), antithetic=True)
    assert (pairs[:3] + pairs[4:] == 999).all()
    assert objective.schedule.bins(torch.tensor([0, 499, 500, 999]), 2).tolist() == [0, 0, 1, 1]


def test_class_names_of_models_stand_in_families_folders_only():
    """load.py asks; a family's own folder may name its classes."""
    root = Path(hf_unlearn.families.__file__).parent
    asks = re.compile(r"class_names\(|isinstance\([^)]*(PreTrainedModel|Pipeline)")
    found = {str(path.relative_to(root)) for path in root.rglob("*.py") if asks.search(path.read_text())}
    assert found == {"base.py", "text_to_image/pipelines.py", "text_to_image/text_encoder.py"}
