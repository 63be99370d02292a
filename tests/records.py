"""Records of runs that never were: one with every section, and small ones of each family."""

from typing import Any

from hf_unlearn.evaluation.metric import Metric
from hf_unlearn.report.reading import record_from_json
from hf_unlearn.report.record import RunRecord


def share(value: float | None, samples: int = 100) -> dict[str, Any]:
    return Metric(value, "share of samples that the judge reads as asked", samples, "torch 2.13").as_dict()


def distance(value: float | None) -> dict[str, Any]:
    return Metric(
        value,
        "Frechet distance",
        900,
        "torchmetrics 1.9",
        {"scheduler": "DDIMScheduler", "num_inference_steps": 10, "guidance_scale": 1.5, "seed": 0},
    ).as_dict()


def run_record(**changes: Any) -> RunRecord:
    """The record of a file with these fields.

    Class 3 of four forgotten: forget accuracy 1.0 -> 0.01, retain accuracy 0.99 -> 0.98, a retrained model.
    """
    values: dict[str, Any] = dict(
        family="NoisePrediction",
        library_name="diffusers",
        pipeline_tag="unconditional-image-generation",
        forgotten="class 3",
        base_model={"name": "some/model", "revision": "main", "on_hub": True},
        method={"name": "sfron", "paper": "2409.19732", "options": {"forget_alpha": 2.0, "bound_margin": None}},
        training={"outer_steps": 50, "learning_rate": 5e-4, "batch_size": 64, "seed": 0, "precision": "fp32"},
        data={name: {"samples": 1234, "fingerprint": "c6ef29", "source": "photos"} for name in ("forget", "retain")},
        figures={
            "before": {
                "forget_accuracy": share(1.0),
                "retain_accuracy": share(0.99, 900),
                "frechet_distance": distance(0.5),
            },
            "after": {
                "forget_accuracy": share(0.01),
                "retain_accuracy": share(0.98, 900),
                "frechet_distance": distance(0.6),
            },
            "retrained": {
                "forget_accuracy": share(0.02),
                "retain_accuracy": share(0.99, 900),
                "frechet_distance": distance(0.55),
            },
        },
        per_class=[
            {"name": str(c), "forget": c == 3, "before": 1.0, "after": float(c != 3), "retrained": 0.5}
            for c in range(4)
        ],
        weights={"network": "UNet2DModel", "total": 40, "trained": "all", "trained_share": 1.0, "moved_share": 0.75},
        objective={
            "label_dropout": 0.1,
            "forget_label_dropout": False,
            "null_class": 4,
            "antithetic": True,
            "anchor_rule": "the next retained class",
            "anchors": [["3", "0"]],
        },
        log=[
            {"step": s, "loss": 0.1 / s, "retain_loss": 0.1 / s, "forget_loss": 1.0 / s, "grad_norm": 1.0}
            for s in range(1, 11)
        ],
        mask={"density": 0.4, "drift": 0.0, "layers": [["down.0.weight", 30, 0.5], ["down.0.bias", 10, 0.1]]},
        cost={"seconds": 100.0, "peak_memory_mb": 512, "device": "x86_64 CPU, 2 threads"},
        history=[{"forgotten": "class 5", "method": "ssd"}, {"forgotten": "class 3", "method": "sfron"}],
        environment={"hf_unlearn": "0.1.0", "python": "3.11.7"},
        created="2026-11-21",
    )
    return record_from_json({**values, **changes})


COMMAND = ["hf-unlearn", "sd", "--concept", "a rocket", "--max_steps", "100"]


def figure(value: float | None, samples: int = 128, **details: Any) -> dict[str, Any]:
    """A loss, a distance or anything else that is no share."""
    return {"value": value, "definition": "d", "samples": samples, "details": details}


def attack(name: str, share: float, **controls: Any) -> dict[str, Any]:
    """What an attack found in 72 pictures, and on its controls: the original, 1.0, unless `ceiling` says otherwise.

    Args:
        controls: shares of 72 pictures by role, and other details.
    """
    beside = {"ceiling": 1.0, "positive": 1.0, "negative": None, **controls}
    roles = {role: beside.pop(role) for role in ("ceiling", "positive", "negative")}
    read = {role: None if value is None else {"value": value, "samples": 72} for role, value in roles.items()}
    details = {"attack": name, "budget": "200 steps", "settings": {"tokens": 4}, **read, **beside}
    return {"value": share, "definition": "share", "samples": 72, "details": details}


def relearning(steps: float, reached: bool = True, **controls: float) -> dict[str, Any]:
    """Steps of relearning, at which 72 pictures were read, and those of its controls."""
    beside = {role: {"value": value, "samples": 72} for role, value in controls.items()}
    details = {"attack": "relearning", "budget": "5 pictures", "reached": reached, **beside}
    return {"value": steps, "definition": "steps", "samples": 72, "details": details}


def models(**rows: tuple) -> dict[str, dict[str, Any]]:
    """figures from name=(before, after) or (before, after, retrained), each (value, samples) or a metric."""
    found: dict[str, dict[str, Any]] = {}
    for name, cells in rows.items():
        for model, cell in zip(("before", "after", "retrained"), cells):
            if cell is not None:
                found.setdefault(model, {})[name] = share(*cell) if isinstance(cell, tuple) else cell
    return found


def generator(rate: float = 5e-4, **rows: tuple) -> RunRecord:
    """A DDPM that forgets the class 3, without the figures that `run_record` has."""
    training = {"outer_steps": 50, "learning_rate": rate, "batch_size": 64, "seed": 0}
    command = ["hf-unlearn", "ddpm", "--forget_class=3", *([] if rate == 5e-4 else [f"--learning_rate={rate:g}"])]
    loads = ["ClassConditionalDDPMPipeline"]
    made = {"per_class": [], "forgets": "class", "command": command, "loads_with": loads}
    return run_record(figures=models(**rows), training=training, **made)


def painter(forgotten: str = "a rocket", rate: float = 1e-5, **rows: tuple) -> RunRecord:
    """A text-to-image model that forgets a concept."""
    return run_record(
        figures=models(**rows),
        family="TextToImage",
        pipeline_tag="text-to-image",
        forgotten=forgotten,
        training={"outer_steps": 100, "learning_rate": rate, "batch_size": 4, "seed": 0},
        per_class=[],
        forgets="concept",
        command=COMMAND,
        loads_with=["StableDiffusionPipeline"],
    )


def classifier(forgets: str = "samples", **rows: tuple) -> RunRecord:
    """A classifier that forgets 126 training images, or a class of which there are as many."""
    return run_record(
        figures=models(**rows),
        family="Classification",
        library_name="transformers",
        pipeline_tag="image-classification",
        forgotten="126 training images" if forgets == "samples" else "class 3",
        training={"outer_steps": 50, "learning_rate": 1e-4, "batch_size": 64, "seed": 0},
        per_class=[],
        forgets=forgets,
        command=["hf-unlearn", "classify", "--learning_rate", "1e-4"],
        loads_with=["ViTForImageClassification", "ViTImageProcessor"],
    )
