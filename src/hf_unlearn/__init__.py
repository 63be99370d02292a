"""Machine unlearning for Hugging Face models."""

__version__ = "0.1.0"

_EXPORTS = {
    "common.errors": ("DivergenceError",),
    "training.config": ("UnlearnConfig",),
    "data.pairs": ("ForgetRetainDataset", "split_by_index", "split_by_label"),
    "data.images": ("digits",),
    "data.sources": ("load_images",),
    "methods": (
        "METHODS",
        "ESD",
        "LUR",
        "SCRUB",
        "SSD",
        "UCE",
        "BadTeacher",
        "BoundaryShrink",
        "ConceptAblation",
        "FineTune",
        "GradientAscent",
        "L1Sparse",
        "NegGradPlus",
        "RandomLabel",
        "SFRon",
        "SalUn",
        "SelectiveAmnesia",
    ),
    "saliency.ranks": ("add_lora", "find_salient_target_modules"),
    "saving.adapters": ("load_adapter", "remove_adapters", "set_strengths"),
    "families": ("Classification", "DiTPrediction", "NoisePrediction", "TextToImage", "encode_prompts"),
    "families.ddpm.pipeline": ("ClassConditionalDDPMPipeline", "load_ddpm_pipeline"),
    "saliency.masks": ("Masks", "density_masks", "load_masks", "ratio_masks"),
    "saliency.fisher": ("fisher",),
    "training.trainer": ("UnlearnTrainer",),
}
__all__ = ["__version__", *(name for names in _EXPORTS.values() for name in names)]


def __getattr__(name: str):
    # torch, diffusers and transformers are imported when the first name is used, not by `import hf_unlearn`.
    from importlib import import_module

    for module, names in _EXPORTS.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
