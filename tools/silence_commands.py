"""How long each command of hf-unlearn is silent: a table of all of them, on the models and data that are shipped.

python tools/silence_commands.py
python tools/silence_commands.py --only sd attack --folder /tmp/screens --docs docs/terminal.md

Every command is run in a terminal of its own (tools/silence.py) with small settings. A run that needs the result of
another makes that first. The exit code is 1 where a command fails, is silent for longer than the limit, or shows a
line that a library printed.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import yaml
from PIL import Image

from hf_unlearn import digits
from hf_unlearn.evaluation.emoji import EMOJI_SD
from hf_unlearn.families.classifier.inputs import plain_processor
from hf_unlearn.training.recipes import build_classifier, digits_splits, train_classifier

TOOLS = Path(__file__).resolve().parent
sys.path[:0] = [str(TOOLS), str(TOOLS.parent / "tests")]
from silence import LIMIT, Recording, last_line, record  # noqa: E402

HEAD = (
    "| command | date | seconds | of CPU | longest silence, s | longest phase without a bar | lines of libraries |",
    "|---|---|---|---|---|---|---|",
)
PAGE = re.compile(r"(<!-- silence -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Case:
    """One call of a command.

    name: of the case; that of the command, and more where a command has several.
    words: what follows `hf-unlearn`; {emoji} is the shipped model, every other file lies in the working folder.
    after: cases whose results it reads.
    until: text at which a command that serves is interrupted.
    needs: module that an extra installs; the case is left out without it.
    """

    name: str
    words: str
    after: tuple[str, ...] = ()
    until: str | None = None
    needs: str | None = None


DRAW = "--guidance_scale 3 --num_inference_steps 10"
EMOJI = "--pretrained_model_name_or_path {emoji} --concept rocket --anchor_concept sailboat --eval_profile quick "
EMOJI += f"--num_forget_images 16 --num_retain_images 32 --max_train_steps 20 {DRAW}"
CASES = (
    Case("ddpm", "ddpm --max_train_steps 10 --eval_samples_per_class 20 --output_dir ddpm"),
    Case(
        "dit",
        "dit --pretrained_model_name_or_path tiny-dit --train_data_dir images --forget_class 1 --max_train_steps 20 "
        "--train_batch_size 4 --num_inference_steps 10 --output_dir dit",
    ),
    Case("t2i", f"t2i {EMOJI} --use_lora --lora_select all --output_dir t2i"),
    Case("sd", f"sd {EMOJI} --output_dir sd"),
    Case("classify", "classify --forget_class 3 --output_dir classify"),
    Case("classify, samples", "classify --forget_fraction 0.1 --attack quick --output_dir samples"),
    Case("compare", "compare recipe.yaml --output_dir comparisons --jobs 2"),
    Case(
        "augment",
        "augment --by loss --share 0.05 --num_inference_steps 10 --max_train_steps 20 --train restart "
        "--output_dir augmented",
    ),
    Case("requests add", "requests service add --file requests.yaml"),
    Case("requests run", "requests service run", ("requests add",)),
    Case("requests status", "requests service status", ("requests run",)),
    Case("requests report", "requests service report", ("requests run",)),
    Case("requests run, pictures", "requests painted run --file pictures.yaml"),
    Case("attack, class", "attack ddpm --samples 4", ("ddpm",)),
    Case("attack, concept", "attack sd --samples 4 --original {emoji} --neighbours", ("sd",)),
    Case(
        "classify, own model",
        "classify --pretrained_model_name_or_path classifier --train_data_dir digits/train "
        "--validation_data_dir digits/test --forget_class 3 --max_train_steps 10 --train_batch_size 16 "
        "--output_dir own",
    ),
    Case("attack, classifier", "attack own", ("classify, own model",)),
    Case("report", "report sd", ("sd",)),
    Case(
        "report --export",
        "report sd --export unlearncanvas canvas --seeds 188 --styles Cartoon --objects Dogs",
        ("sd",),
    ),
    Case("export", "export tiny-sd --format single_file"),
    Case("export, adapter", "export t2i --format kohya", ("t2i",)),
    Case("check", "check sd --max-forget 1", ("sd",)),
    Case("demo", "demo t2i --original {emoji} --port 7899", ("t2i",), "Running on local URL", "gradio"),
    Case("demo --space", "demo --space space"),
    Case("saliency", "saliency --forget_class 7 --output masks.safetensors"),
    Case("estimate", "estimate {emoji}"),
    Case("publish", "publish sd someone/without-rockets --dry_run", ("sd",)),
    Case("env", "env"),
)


def prepare(folder: Path) -> None:
    """Write what the cases read: tiny pipelines, a classifier with images, a recipe, and two files of requests."""
    from conftest import tiny_dit, tiny_sd

    tiny_dit().save_pretrained(folder / "tiny-dit")
    tiny_sd().save_pretrained(folder / "tiny-sd")
    classifier = build_classifier("digits_vit", 0)
    train_classifier(classifier, digits_splits()["train"], 0, max_steps=100)
    classifier.save_pretrained(folder / "classifier")
    plain_processor(classifier.config, [0.5], [0.5]).save_pretrained(folder / "classifier")
    data = digits()
    labels = data.labels or []
    for label in range(10):
        places = [i for i, found in enumerate(labels) if found == label]
        parts = {"digits/train": places[:20], "digits/test": places[20:30]}
        if label < 4:
            parts["images"] = places[:8]
        for part, chosen in parts.items():
            (folder / part / str(label)).mkdir(parents=True, exist_ok=True)
            for i in chosen:
                pixels = ((data.pixel_values[i, 0] + 1) * 127.5).byte().numpy()
                image = Image.fromarray(pixels).convert("RGB" if part == "images" else "L")
                image.save(folder / part / str(label) / f"{i}.png")
    train = {"max_steps": 60, "learning_rate": 2e-3, "per_device_train_batch_size": 64}
    recipe = {"name": "recipe", "data": "digits", "model": "digits_resnet", "forget": {"classes": [3]}}
    recipe |= {"methods": ["finetune", "sfron"], "seeds": [0, 1], "budget": 12, "batch_size": 64, "trials": 2}
    files: dict[str, dict] = {"recipe.yaml": {**recipe, "train": train}}
    tasks = {"tasks": [[0, 1], [2, 3]], "memory": {"samples": 50}, "requests": ["0R", "1T", "1F"]}
    files["requests.yaml"] = {"model": "digits_resnet", "data": "digits", "steps": 20, **tasks}
    asked = [{"forget": {"concept": "a car", "anchor": "a sailboat"}}]
    files["pictures.yaml"] = {"model": "emoji_sd", "steps": 10, "batch_size": 8, "requests": asked}
    for name, content in files.items():
        (folder / name).write_text(yaml.safe_dump(content))


def wanted(names: Sequence[str]) -> list[Case]:
    """The cases of some commands, all if none is named, in their order and after those whose results they read."""
    found = [case for case in CASES if not names or case.name in names or case.words.split()[0] in names]
    chosen = {case.name for case in found}
    while more := {name for case in CASES if case.name in chosen for name in case.after} - chosen:
        chosen |= more
    return [case for case in CASES if case.name in chosen]


def run_case(case: Case, folder: Path) -> Recording:
    """Run one case in a folder and keep what its screen showed in `folder`/screens."""
    words = case.words.format(emoji=EMOJI_SD).split()
    found = record([sys.executable, "-m", "hf_unlearn", *words], until=case.until, folder=folder)
    if case.until is not None:  # it was served, then interrupted
        found = replace(found, code=0 if case.until in found.text else found.code or 1)
    (folder / "screens").mkdir(exist_ok=True)
    (folder / "screens" / f"{re.sub('[^a-z0-9]+', '_', case.name)}.txt").write_text(found.text)
    return found


def wrong(found: Recording, limit: float = LIMIT) -> list[str]:
    """What is wrong with a run, a line each."""
    lines = [f"exit code {found.code}: {last_line(found.text)[:300]}"] if found.code else []
    if found.silence > limit:
        lines.append(f"silent for {found.silence:.1f} s after: {found.silences[0][1][:100]}")
    return lines + [f"not ours: {line[:200]}" for line in found.foreign]


def table(found: dict[str, Recording], before: str = "") -> str:
    """A row for each case; those that were not run keep their row of the table `before`."""
    rows = {line.split("`")[1]: line for line in before.splitlines() if line.startswith("| `")}
    for name, one in found.items():
        phase, seconds = max(one.phases.items(), key=lambda pair: pair[1], default=("–", 0))
        shown = f"{phase}, {seconds} s" if seconds else phase
        rows[name] = (
            f"| `{name}` | {date.today()} | {one.seconds:.0f} | {one.cpu:.0f} | {one.silence:.1f} | {shown} | "
            f"{len(one.foreign)} |"
        )
    return "\n".join([*HEAD, *(rows[case.name] for case in CASES if case.name in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="commands or cases; the default is all")
    parser.add_argument("--folder", type=Path, help="where the commands work; the default is a temporary folder")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of silence that are too long")
    parser.add_argument("--docs", type=Path, help="page whose rows of these cases are renewed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as own:
        folder = (options.folder or Path(own)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        prepare(folder)
        found, faults = {}, 0
        for case in wanted(options.only):
            if case.needs is not None and find_spec(case.needs) is None:
                print(f"{case.name}: left out, {case.needs} is not installed", flush=True)
                continue
            one = found[case.name] = run_case(case, folder)
            lines = wrong(one, options.limit)
            faults += len(lines)
            print(f"{case.name}: {one.seconds:.0f} s", *lines, sep="\n    ", flush=True)
    page = "" if options.docs is None else options.docs.read_text(encoding="utf-8")
    made = table(found, page)
    print(f"\n{made}")
    if options.docs is not None:
        options.docs.write_text(PAGE.sub(lambda m: f"{m[1]}\n{made}\n\n{m[2]}", page), encoding="utf-8")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
