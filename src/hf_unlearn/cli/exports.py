"""A text-to-image run in forms that others read: one file, and what two benchmarks ask for.

The forms of the two benchmarks were read off these files of theirs:
- OPTML-Group/UnlearnCanvas, machine_unlearning/evaluation: quantitative/accuracy.py opens the images by name,
  sampling_unlearned_models/*.py have prompts, steps and guidance, constants/const.py the styles and objects.
- REAL-Lab-Imperial/Eval-Unlearn: docs/docs/cli.md and running-experiments/ have the configuration,
  src/eval_unlearn/techniques/free_run/wrapper.py loads a pipeline, docs/docs/metrics/ua-ira.md has its prompts' files.
"""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..common.bars import bar, phase
from ..common.devices import joined_state
from ..common.files import atomic, write_text
from ..common.precisions import as_stored
from ..families import denoiser_of
from ..families.load import load_model
from ..report.forgetting import is_unsafe
from ..report.made import sampler_of
from ..report.reading import read_record
from ..report.record import RunRecord
from ..saving.adapters import holds_adapter, load_adapter, merged_copy, network_of
from ..saving.export import ADAPTER_FOLDER
from ..saving.kohya import write_kohya
from ..saving.single_file import write_single_file
from .side_by_side import original_of

KINDS = ("unlearncanvas", "eval-unlearn")
# UnlearnCanvas, the 50 styles of its benchmark and the photographs: machine_unlearning/evaluation/constants/const.py.
STYLES = tuple(
    "Abstractionism Artist_Sketch Blossom_Season Bricks Byzantine Cartoon Cold_Warm Color_Fantasy Comic_Etch Crayon "
    "Cubism Dadaism Dapple Defoliation Early_Autumn Expressionism Fauvism French Glowing_Sunset Gorgeous_Love "
    "Greenfield Impressionism Ink_Art Joy Liquid_Dreams Magic_Cube Meta_Physics Meteor_Shower Monet Mosaic Neon_Lines "
    "On_Fire Pastel Pencil_Drawing Picasso Pop_Art Red_Blue_Ink Rust Seed_Images Sketch Sponge_Dabbed Structuralism "
    "Superstring Surrealism Ukiyoe Van_Gogh Vibrant_Flow Warm_Love Warm_Smear Watercolor Winter".split()
)
OBJECTS = tuple(
    "Architectures Bears Birds Butterfly Cats Dogs Fishes Flame Flowers Frogs Horses Human Jellyfish Rabbits "
    "Sandwiches Sea Statues Towers Trees Waterfalls".split()
)
SEEDS = (188, 288, 588, 688, 888)  # the default of its accuracy.py
STEPS, GUIDANCE = 100, 9.0  # of its sampling scripts
CLIP = "openai/clip-vit-large-patch14"  # the default of eval-unlearn's ua_ira


def export_run(
    kind: str,
    run_dir: str | Path,
    out: str | Path,
    original: str | None = None,
    seeds: Sequence[int] = SEEDS,
    styles: Sequence[str] = STYLES,
    objects: Sequence[str] = OBJECTS,
) -> str:
    """Write a run in the form `kind` to `out`, and return what to do with it, in one line.

    Args:
        original: folder or Hub id of an adapter's base; default what the record names.
        seeds, styles, objects: of UnlearnCanvas; its evaluation wants all of them.

    Raises:
        ValueError: the run is no text-to-image model, lacks what the form needs, or a style or object is not one.
    """
    if kind not in KINDS:
        raise ValueError(f"--export {kind} is none of {', '.join(KINDS)}")
    record = read_record(run_dir)
    if record.pipeline_tag != "text-to-image":
        raise ValueError(f"{kind} evaluates text-to-image models, and this run is a {record.pipeline_tag} model")
    if kind == "unlearncanvas":
        for name, chosen, known in (("style", styles, STYLES), ("object", objects, OBJECTS)):
            unknown = [word for word in chosen if word not in known]
            if unknown:
                raise ValueError(f"{unknown[0]} is no {name} of UnlearnCanvas: it has {', '.join(known)}")
        return unlearncanvas(record, run_dir, Path(out), original, seeds, styles, objects)
    return eval_unlearn(record, run_dir, Path(out), original)


def pipeline_of(record: RunRecord, run_dir: str | Path, original: str | None = None) -> Any:
    """The unlearned pipeline of a run; an adapter is put on its base."""
    if not holds_adapter(run_dir):
        return load_model(str(run_dir))[0]
    name, revision = (original, None) if original else original_of(record, run_dir)
    pipeline = load_model(name, revision)[0]
    load_adapter(pipeline, run_dir)
    return pipeline


def merged_pipeline(run_dir: str | Path, original: str | None = None) -> Any:
    """The unlearned pipeline of a run with its adapter, if it is one, merged into its weights.

    A folder of full weights needs no record.
    """
    if not holds_adapter(run_dir):
        return load_model(str(run_dir))[0]
    pipeline = pipeline_of(read_record(run_dir), run_dir, original)
    pipeline.register_modules(**{denoiser_of(pipeline).part: merged_copy(network_of(pipeline))})
    return pipeline


def export_file(
    kind: str, run_dir: str | Path, path: Path, original: str | None = None, dtype: str | None = None
) -> str:
    """Write a result to the .safetensors file `path` as a "single_file" or in the form of "kohya".

    Args:
        original: folder or Hub id of an adapter's base; default what the record names.
        dtype: name in torch of the precision of a single file; None keeps the stored one.

    Raises:
        ValueError: what `write_single_file` and `write_kohya` raise.
    """
    if kind == "kohya":
        phase("writing the adapter and reading it back")
        within = Path(run_dir) / ADAPTER_FOLDER  # beside merged weights
        write_kohya(within if holds_adapter(within) else run_dir, path)
        return f"{path}: the adapter in kohya's form, for A1111, ComfyUI and load_lora_weights"
    phase("loading the model")
    pipeline = merged_pipeline(run_dir, original)
    phase("writing the file and reading it back")
    write_single_file(pipeline, path, None if dtype is None else getattr(torch, dtype))
    target = pipeline.scheduler.config.get("prediction_type", "epsilon")
    note = "" if target == "epsilon" else f"; it predicts {target}, which no name in the file says: choose it there"
    return f"{path}: the whole model, for A1111, ComfyUI and from_single_file{note}"


# ---- UnlearnCanvas ---------------------------------------------------------------------------
def unlearncanvas(
    record: RunRecord,
    run_dir: str | Path,
    out: Path,
    original: str | None,
    seeds: Sequence[int],
    styles: Sequence[str],
    objects: Sequence[str],
) -> str:
    """Generate `out`/THEME/STYLE_OBJECT_seedSEED.jpg, which its accuracy.py and fid.py open.

    The prompt is theirs, "A {object} image in {style} style."; each image starts from its own seed. An image that is
    there already is not generated again.
    """
    theme = theme_of(record)
    folder = out / theme
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [(style, thing, seed) for seed in seeds for style in styles for thing in objects]
    missing = [row for row in wanted if not (folder / image_name(*row)).is_file()]
    if missing:
        phase("loading the model")
        pipeline = pipeline_of(record, run_dir, original)
        pipeline.to(joined_state().device).set_progress_bar_config(disable=True)
        adapter = denoiser_of(pipeline)
        for style, thing, seed in bar(missing, "UnlearnCanvas"):
            image = pipeline(
                prompt=f"A {thing} image in {style.replace('_', ' ')} style.",
                num_inference_steps=STEPS,
                generator=torch.Generator().manual_seed(seed),
                **adapter.sampling(pipeline, GUIDANCE, 1),
            ).images[0]
            with atomic(folder / image_name(style, thing, seed)) as partial:
                image.save(partial, format="JPEG", quality=95)
    return (
        f"{len(wanted)} images are in {folder}: python quantitative/accuracy.py --theme {theme} --input_dir {out} "
        "--output_dir results --ckpt CLASSIFIER, in machine_unlearning/evaluation of UnlearnCanvas"
    )


def image_name(style: str, thing: str, seed: int) -> str:
    """The name under which accuracy.py looks for an image."""
    return f"{style}_{thing}_seed{seed}.jpg"


def theme_of(record: RunRecord) -> str:
    """The style or object that was forgotten as UnlearnCanvas calls it, else its words as one."""
    words = record.forgotten.rpartition(":")[2].strip()
    known = {name.casefold(): name for name in (*STYLES, *OBJECTS)}
    plain = "_".join("".join(c if c.isalnum() else " " for c in words).split()) or "forgotten"
    return known.get(plain.casefold(), plain)


# ---- eval-unlearn ----------------------------------------------------------------------------
def eval_unlearn(record: RunRecord, run_dir: str | Path, out: Path, original: str | None) -> str:
    """Write config.json, target_prompts.csv and retain_prompts.csv: `eval-unlearn run --config` reads the first.

    The technique is its `free_run`, which loads a pipeline's folder; an adapter is merged into a copy of its base in
    `out`/model. The metric is its `ua_ira`, on the prompts that were forgotten and on their anchors, and its
    `clip_score`; `asr_i2p` where the concept is nudity.

    Raises:
        ValueError: the record names no prompt with an anchor.
    """
    pairs = record.objective.anchors if record.objective is not None else []
    kept = list(dict.fromkeys(anchor for _, anchor in pairs if anchor))
    if not kept:
        raise ValueError("the record names no forgotten prompt with an anchor, which ua_ira of eval-unlearn compares")
    out.mkdir(parents=True, exist_ok=True)
    model = Path(run_dir)
    if holds_adapter(run_dir):
        model = out / "model"
        pipeline = merged_pipeline(run_dir, original)
        with as_stored(pipeline):
            pipeline.save_pretrained(model)
    _prompts(out / "target_prompts.csv", [prompt for prompt, _ in pairs])
    _prompts(out / "retain_prompts.csv", kept)
    sampler = sampler_of(record)
    technique: dict[str, Any] = {"model_id": str(model.resolve())}
    if sampler is not None:
        technique["num_inference_steps"] = sampler.num_inference_steps
        if sampler.guidance_scale is not None:
            technique["guidance_scale"] = sampler.guidance_scale
    metrics: list[dict[str, Any]] = [
        {
            "name": "ua_ira",
            "config": {
                "target_prompts_path": str((out / "target_prompts.csv").resolve()),
                "retain_prompts_path": str((out / "retain_prompts.csv").resolve()),
                "target_concept": record.forgotten,
                "retain_concept": kept[0],
                "clip_model_name": CLIP,
            },
        },
        {"name": "clip_score", "config": {"clip_model_name": CLIP}},
    ]
    if is_unsafe(record):
        metrics.append({"name": "asr_i2p", "config": {"concept_name": "nudity", "detector": "nudenet"}})
    config = {
        "technique": {"name": "free_run", "config": technique},
        "metrics": metrics,
        "output_dir": str((out / "results").resolve()),
    }
    write_text(out / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    return f"eval-unlearn run --config {out / 'config.json'}"


def _prompts(path: Path, prompts: Sequence[str]) -> None:
    """A CSV with the column "prompt", the first row its name."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["prompt"])
    writer.writerows([" ".join(prompt.split())] for prompt in prompts)
    write_text(path, text.getvalue())
