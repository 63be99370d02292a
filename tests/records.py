"""A record of a run that never was, with every section."""

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
