"""What the card states about trained weights, the mask and the samples is what the run did."""

import pytest
from conftest import config, latents, tiny_sd
from test_cards import FIGURES, a_record, code_of

from hf_unlearn import SFRon, UnlearnTrainer, encode_prompts, split_by_label
from hf_unlearn.evaluation.metric import Metric
from hf_unlearn.families import text_to_image_objective
from hf_unlearn.report.cards import model_card
from hf_unlearn.report.recording import record_run


def test_the_mask_sentence_says_of_which_weights(tmp_path):
    """Half of four trained weights of sixteen are in the mask, not half of the model."""
    layers = [["attn2.to_k.weight", 3, 1 / 3], ["attn2.to_v.weight", 1, 1.0]]
    part = {"network": "UNet2DConditionModel", "total": 16, "trained": "part", "trained_share": 0.25}
    mask = {"density": 0.5, "drift": 0.0, "layers": layers, "every_step": False}
    text = model_card(a_record(weights={**part, "trained_weights": 4}, mask=mask), "x")
    assert "25 % of the weights of the UNet2DConditionModel, 4 of 16, were trained" in text
    assert (
        "50.0 % of the 4 trained weights of the UNet2DConditionModel were in the mask, which is 12.5 % of all" in text
    )
    assert "It held for forget steps; retain steps move all of them." in text
    always = model_card(a_record(weights=part, mask={**mask, "every_step": True}), "x")
    assert "It held for all steps." in always and "retain steps move" not in always.lower()


@pytest.mark.parametrize("train_method", ["xattn", "text_encoder"])
def test_the_card_says_what_was_trained(train_method, tmp_path):
    """Of a text-to-image model: the record counts the trained weights, and the card does not say that a trained text
    encoder is the base model's."""
    pipeline = tiny_sd()
    prompts = encode_prompts(pipeline, ["a church", "a house"])
    objective = text_to_image_objective(pipeline, prompts, {"a church": "a house"}, train_method=train_method)
    sets = split_by_label(latents(prompts), 1)
    trainer = UnlearnTrainer(objective, config(tmp_path, max_steps=1), SFRon(fisher_samples=2), *sets)
    trainer.train()
    record = record_run(trainer, "a church", FIGURES)
    trained = [p for p in objective.network.parameters() if p.requires_grad]
    assert record.weights.trained_weights == sum(p.numel() for p in trained)
    assert len(record.mask.layers) == len(trained) and record.mask.every_step is False
    names = [row.parameter for row in record.mask.layers]
    text = model_card(record, "x")
    if train_method == "xattn":
        assert all("attn2" in name for name in names) and record.weights.trained == "part"
        assert "they still know what was forgotten" in text
    else:
        assert record.weights.network == "CLIPTextModel" and record.weights.trained == "all"
        assert "they still know" not in text and "The UNet and the VAE are those of the base model" in text


SAMPLED = {"num_inference_steps": 7, "guidance_scale": 2.5, "scheduler": "PNDMScheduler", "seed": 0}
CALLS = {  # class that loads the result, the pipeline's task -> the call of the snippet
    ("ClassConditionalDDPMPipeline", "unconditional-image-generation"): (
        "pipe(class_labels=[0, 2], guidance_scale=2.5, num_inference_steps=7)"
    ),
    ("DiTPipeline", "unconditional-image-generation"): (
        "pipe(class_labels=[0, 2], guidance_scale=2.5, num_inference_steps=7)"
    ),
    ("DDPMPipeline", "unconditional-image-generation"): "pipe(num_inference_steps=7)",
    ("StableDiffusionPipeline", "text-to-image"): (
        'pipe("a mountain landscape at sunset", guidance_scale=2.5, num_inference_steps=7, height=16, width=24)'
    ),
}


@pytest.mark.parametrize(("loader", "tag"), CALLS)
def test_the_snippet_generates_as_the_metrics_were_measured(loader, tag):
    size = {"height": 16, "width": 24} if tag == "text-to-image" else {}
    figures = {"after": {"retain_accuracy": Metric(0.5, "share", 5, "torch", {**SAMPLED, **size})}}
    rows = [{"name": str(c), "forget": c == 1, "before": 1.0, "after": 1.0} for c in range(3)]
    record = a_record(loads_with=[loader], pipeline_tag=tag, per_class=rows).measured(figures)
    code = code_of(model_card(record, "x"))
    assert f"images = {CALLS[loader, tag]}.images" in code
    compile(code, "snippet", "exec")
    if loader == "ClassConditionalDDPMPipeline":
        assert 'PNDMScheduler.from_pretrained("x", subfolder="scheduler")' in code and "DDIMScheduler" not in code
    losses = record.measured({"after": {"forget_loss": Metric(1.0, "loss", 5)}})
    assert "guidance_scale" not in code_of(model_card(losses, "x"))
