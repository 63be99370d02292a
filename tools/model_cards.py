"""The cards in model_cards/: each stands beside the record of the run that it was filled from.

python tools/model_cards.py                    # rebuilds every README.md from the unlearning_report.json beside it
python tools/model_cards.py --run digits_vit   # runs the recipe first (minutes) and keeps what it recorded
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hf_unlearn.report.badge import write_badge
from hf_unlearn.report.cards import CARD_FILE, model_card
from hf_unlearn.report.outcome import outcome
from hf_unlearn.report.reading import read_record
from hf_unlearn.report.record import RECORD_FILE

ROOT = Path(__file__).parents[1]
CARDS = ROOT / "model_cards"


@dataclass
class Recipe:
    """name: of the result. command: of the script that makes it, without its output folder. head: front matter that
    no record can know."""

    name: str
    command: str
    head: str = ""

    @property
    def start(self) -> str:
        """The card before it was filled: what stands around our section."""
        line = f"Made by `python {self.command} --output_dir {self.name}`.\n"
        return f"---\n{self.head}\n---\n{line}" if self.head else line


RECIPES = {
    "digits_ddpm": Recipe("digits-ddpm-without-3", "scripts/unlearn_ddpm.py"),
    "digits_vit": Recipe("digits-vit-without-a-tenth", "scripts/unlearn_classification.py", "license: apache-2.0"),
    "emoji_sd": Recipe("emoji-sd-without-rocket", "benchmarks/emoji_card.py"),
}


def rebuilt(folder: str) -> str:
    """The card of a recipe from its record alone."""
    return model_card(read_record(CARDS / folder), RECIPES[folder].name, RECIPES[folder].start)


def run_recipe(folder: str) -> None:
    """Run a recipe's command in a scratch folder; keep its record and its picture."""
    recipe, kept = RECIPES[folder], CARDS / folder
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / recipe.name
        command = [sys.executable, *recipe.command.split(), "--output_dir", str(result)]
        subprocess.run(command, cwd=ROOT, check=True)
        kept.mkdir(parents=True, exist_ok=True)
        shutil.copy(result / RECORD_FILE, kept)
        picture = read_record(result).picture
        if picture is not None:
            shutil.copy(result / picture, kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="*", default=[], choices=sorted(RECIPES), help="recipes to run first")
    for folder in parser.parse_args().run:
        run_recipe(folder)
    for folder in sorted(RECIPES):
        path = CARDS / folder / CARD_FILE
        path.write_text(rebuilt(folder), encoding="utf-8")
        write_badge(CARDS / folder, outcome(read_record(CARDS / folder)))
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
