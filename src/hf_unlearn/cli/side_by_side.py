"""The original and the unlearned model of a run, asked the same thing: same class or prompt, same seed, same image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..common.limits import check_limits
from ..common.names import is_hub_id
from ..data.pairs import collate
from ..evaluation import DIGITS_DDPM
from ..families.classifier.inputs import pixels_for
from ..families.classifier.load import check_same_build
from ..families.load import CLASSIFIER, DIT, TEXT_TO_IMAGE, load_model, prepare_family
from ..families.text_to_image.single_file import is_single_file
from ..report.forgetting import is_unsafe
from ..report.reading import read_record
from ..report.record import RunRecord
from ..saliency.ranks import NAME
from ..saving.adapters import holds_adapter, load_adapter, set_strengths

SAMPLES = 4  # of each model
FORGOTTEN = " (forgotten)"
SMALLEST = 256  # smaller images are enlarged for the screen, pixel by pixel


@dataclass
class Drawing:
    """How both models draw; None takes what the run's figures were drawn with, else the family's own."""

    num_inference_steps: int | None = None
    guidance_scale: float | None = None

    def __post_init__(self):
        check_limits(self, num_inference_steps="[1, 1000]", guidance_scale="[0, inf)")


class SideBySide:
    """Two models and what may be asked of them.

    Attributes:
        kind: "class", "prompt", "image" (a classifier) or "seed" (no condition).
        choices: (name, class) pairs for kind "class", forgotten ones named so.
        first: the class or prompt that was forgotten, to open with; "" for an unsafe prompt and where none is known.
        has_strength: whether the unlearned model draws with an adapter, whose strength may be set.
    """

    def __init__(
        self,
        original: Any,
        unlearned: Any,
        processor: Any,
        record: RunRecord,
        drawing: Drawing,
        has_adapter: bool = False,
    ):
        self.record, self.processor = record, processor
        self.models = {"original": original, "unlearned": unlearned}
        self.kind = _kind(unlearned)
        self.choices = _choices(unlearned, record) if self.kind == "class" else []
        self.has_strength = has_adapter and self.kind != "image"
        self.first = self._first()
        if self.kind == "image":
            for model in self.models.values():
                model.eval()
        else:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            for model in self.models.values():
                model.to(device).set_progress_bar_config(disable=True)
        self.options = {} if self.kind == "image" else _options(unlearned, self.kind, record, drawing)

    def draw(self, condition: int | str | None, seed: int) -> tuple[Image.Image, Image.Image]:
        """(original's, unlearned model's) image of a class or a prompt from the same noise.

        Raises:
            ValueError: no class or an empty prompt, or a seed below 0.
        """
        if self.kind != "seed" and (condition is None or condition == ""):
            raise ValueError(f"choose a {self.kind}")
        if seed is None or int(seed) < 0:
            raise ValueError("the seed is a number from 0")
        images = []
        for model in self.models.values():
            asks: dict[str, dict[str, Any]] = {"class": {"class_labels": [condition]}, "prompt": {"prompt": condition}}
            asked = asks.get(self.kind, {})
            generator = torch.Generator().manual_seed(int(seed))
            images.append(_enlarged(model(**asked, **self.options, generator=generator).images[0]))
        return images[0], images[1]

    def draw_many(
        self, condition: int | str | None, seed: int, count: int = SAMPLES, strength: float = 1.0
    ) -> tuple[list[Image.Image], list[Image.Image]]:
        """`draw` for `count` seeds from `seed` on: the original's images, then the unlearned model's.

        Args:
            strength: of the adapter: 1 as trained, 0 off.

        Raises:
            ValueError: what `draw` raises, or there is no adapter whose strength could be another.
        """
        if strength != 1.0 and not self.has_strength:
            raise ValueError("this model has no adapter, so its strength is 1")
        if self.has_strength:
            set_strengths(self.models["unlearned"], {NAME: float(strength)})
        try:
            pairs = [self.draw(condition, seed if seed is None else int(seed) + k) for k in range(count)]
        finally:
            if self.has_strength:
                set_strengths(self.models["unlearned"], {NAME: 1.0})
        return [first for first, _ in pairs], [second for _, second in pairs]

    def _first(self) -> int | str | None:
        if self.kind == "class":
            forgotten = {row.name for row in self.record.per_class if row.forget}
            chosen = [i for name, i in self.choices if name.removesuffix(FORGOTTEN) in forgotten]
            return (chosen or [self.choices[0][1]])[0]
        anchors = self.record.objective.anchors if self.record.objective is not None else []
        known = self.kind == "prompt" and anchors and not is_unsafe(self.record)
        return anchors[0][0] if known else ("" if self.kind == "prompt" else None)

    @torch.no_grad()
    def classify(self, image: Image.Image | None) -> tuple[dict[str, float], dict[str, float]]:
        """(original's, unlearned model's) share of each class name for one image."""
        if image is None:
            raise ValueError("choose an image")
        config = self.models["unlearned"].config
        pixels = pixels_for(image, config, self.processor)
        found = []
        for model in self.models.values():
            shares = model(collate([pixels])).logits[0].float().softmax(0)
            found.append({str(model.config.id2label[i]): share for i, share in enumerate(shares.tolist())})
        return found[0], found[1]


def side_by_side(run_dir: str | Path, original: str | None = None, drawing: Drawing | None = None) -> SideBySide:
    """Both models of a run. `original` is a folder or Hub id; default what the record names.

    Raises:
        ValueError: no record, or an original that is not here, does not load or is another kind of model.
    """
    record = read_record(run_dir)
    adapter = holds_adapter(run_dir)  # then there is nothing of its own to load, and the original comes first
    unlearned: Any = None
    processor: Any = None
    if not adapter:
        unlearned, processor = load_model(str(run_dir))
    name, revision = (original, None) if original else original_of(record, run_dir)
    try:
        first, found = load_model(name, revision)
        if adapter:
            unlearned, processor = load_model(name, revision)[0], found
            load_adapter(unlearned, run_dir)
    except OSError as error:
        raise ValueError(f"the original {name} does not load ({error}): give a folder with --original") from error
    if type(first) is not type(unlearned):
        raise ValueError(f"the original {name} is a {type(first).__name__}, the run's a {type(unlearned).__name__}")
    if prepare_family(unlearned) is CLASSIFIER and not adapter:
        check_same_build(unlearned, first, f"the original {name}")
    return SideBySide(first, unlearned, processor, record, drawing or Drawing(), adapter)


def original_of(record: RunRecord, run_dir: str | Path) -> tuple[str, str | None]:
    """(folder or Hub id, revision) of the model that a run started from.

    Folders and single files are recorded by name only: one of that name is looked for here, beside the run, and where
    the command of the run had it, if it was said by a path from here.
    """
    name = record.base_model.name
    if record.base_model.on_hub:
        if not name or not is_hub_id(name):
            raise ValueError(f"base_model {name!r} of the record is no Hub id: give a folder with --original")
        return name, record.base_model.revision
    if name and Path(name).name != name:
        raise ValueError(f"base_model {name!r} of the record is a path, not a name: give a folder with --original")
    for folder in (Path(name), Path(run_dir).resolve().parent / name, *_said(record, name)) if name else ():
        if folder.is_dir() or is_single_file(folder):
            return str(folder), None
    if name in (None, DIGITS_DDPM.name) and record.family == "NoisePrediction":
        return str(DIGITS_DDPM), None
    if name is None:
        raise ValueError("the run trained its original model itself and did not keep it: give one with --original")
    raise ValueError(f"the original model, a folder {name!r}, is not here: say where it is with --original")


def _said(record: RunRecord, name: str) -> list[Path]:
    """Paths of the record's command that end in `name` and lead downwards from here."""
    values = [word.partition("=")[2] if word.startswith("--") else word for word in record.command or []]
    found = [Path(value) for value in values if value]
    return [path for path in found if path.name == name and not path.is_absolute() and ".." not in path.parts]


def _kind(model: Any) -> str:
    family = prepare_family(model)
    if family is CLASSIFIER:
        return "image"
    if family is TEXT_TO_IMAGE:
        return "prompt"
    conditional = family is DIT or model.unet.config.num_class_embeds
    return "class" if conditional else "seed"


def _choices(pipeline: Any, record: RunRecord) -> list[tuple[str, int]]:
    if "transformer" in pipeline.components:
        names = {i: str(i) for i in range(pipeline.transformer.config.num_embeds_ada_norm)}
        names |= {i: name for name, i in reversed(pipeline.labels.items())}
    else:
        embedded = pipeline.unet.config.num_class_embeds
        names = {i: str(i) for i in range(embedded) if i != pipeline.null_class}
    forgotten = {row.name for row in record.per_class if row.forget}
    return [(f"{name}{FORGOTTEN}" if name in forgotten else name, i) for i, name in names.items()]


def _options(pipeline: Any, kind: str, record: RunRecord, drawing: Drawing) -> dict[str, Any]:
    """num_inference_steps and, where there is guidance, guidance_scale."""
    measured: dict[str, Any] = {}
    for metric in record.figures.get("after", {}).values():
        measured = {**metric.details, **measured}
    options: dict[str, Any] = {"num_inference_steps": 50}
    if kind == "prompt":
        options["guidance_scale"] = 7.5
    elif "transformer" in pipeline.components:  # its null class is 1000, so guidance needs that many classes
        options["guidance_scale"] = 4.0 if pipeline.transformer.config.num_embeds_ada_norm == 1000 else 1.0
    elif kind == "class":
        options["guidance_scale"] = 1.5 if pipeline.null_class is not None else 1.0
    for name in options:
        given = getattr(drawing, name)
        options[name] = measured.get(name, options[name]) if given is None else given
    return options


def _enlarged(image: Image.Image) -> Image.Image:
    factor = -(-SMALLEST // max(image.size))
    return image if factor <= 1 else image.resize([side * factor for side in image.size], Image.Resampling.NEAREST)
