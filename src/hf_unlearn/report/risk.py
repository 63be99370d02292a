"""What a run leaves open: the residual risk, in the same sentences on the card and on the page."""

from ..evaluation.metric import is_attack
from .record import RunRecord
from .recovery import recoveries

FIRST = "The metrics say what was measured, not that the forgotten data cannot be recovered."


def residual_risk(record: RunRecord) -> list[str]:
    """A sentence or two for each thing that was not tried. `code` and "arXiv 0000.00000" are marked up by readers."""
    metrics = {name for row in record.figures.values() for name in row}
    found = recoveries(record)
    said = ["One run with one seed was measured."]
    if "relearn_steps" not in metrics and not any(read.steps for read in found):
        said.append("Nobody tried how few samples and steps bring it back.")
    if found:
        said.append(
            "Attacks that are not in the table above were not tried, and those that are in it had the budget that it "
            "names."
        )
    else:
        said.append(
            "It was not attacked. `hf-unlearn attack FOLDER`, with the folder of these files, tries to bring it back."
        )
    if record.pipeline_tag == "image-classification":
        said += _of_classifier(metrics, bool(found))
    else:
        said += _of_generator(record, metrics, bool(found))
    said.append(
        "Masks stay local unless someone chose otherwise, because knowing which weights were edited helps to undo the "
        "edit (arXiv 2603.06640)."
    )
    return said


def _of_classifier(metrics: set[str], attacked: bool) -> list[str]:
    said = [
        "Accuracy looks at the highest output alone. The layers below may still tell the classes apart, and a probe "
        "on them may find it."
    ]
    if "test_accuracy" not in metrics:
        return [
            *said,
            "There were no images that no model was trained on, so neither test accuracy nor membership inference was "
            "measured.",
        ]
    more = "tell more." if attacked else "tell more, and were not run."
    return [
        *said,
        "Membership inference by one threshold is a weak attack, so its failure proves little. Attacks with shadow "
        f"models {more}",
    ]


def _of_generator(record: RunRecord, metrics: set[str], attacked: bool) -> list[str]:
    judged = any(
        record.role(name).part == "forget" and not name.endswith("_loss") and not is_attack(name) for name in metrics
    )
    said = [
        "The samples come from one sampler and one guidance scale. A classifier does not see what a person sees: look "
        "at the picture."
        if judged
        else "Only training losses were compared and no sample was judged: look at the picture, and look at samples "
        "before use."
    ]
    if record.pipeline_tag != "text-to-image":
        if not attacked:
            said.append(
                "Other ways to the same images were not tried, such as guidance from another model, image to image or "
                "interpolated labels."
            )
        return said
    if not attacked:
        said.append(
            "Only the prompts of the run were used. Synonyms, other languages, image to image, learnt embeddings and "
            "adversarial prompts may still lead to it."
        )
    if record.objective is not None and record.objective.train_method == "text_encoder":
        said.append(
            "The UNet and the VAE are those of the base model: another text encoder in front of them may bring it "
            "back."
        )
    else:
        said.append("The text encoders and the VAE are those of the base model: they still know what was forgotten.")
    return said
