"""The `hf-unlearn` command; `python -m hf_unlearn` is the same."""

import argparse
import sys
from pathlib import Path

from . import __version__
from .terminal import CommandParser, check_writable, run


def compare_command(argv: list[str]) -> None:
    """hf-unlearn compare RECIPE"""
    parser = CommandParser(
        prog="hf-unlearn compare", description="methods x seeds under one budget, against retraining"
    )
    parser.add_argument("recipe", nargs="+", help="YAML files, or names of shipped recipes")
    parser.add_argument("--output_dir", default="comparisons", help="has a folder for each recipe and goes on there")
    parser.add_argument("--models_dir", help="trained models, for all recipes; default OUTPUT_DIR/models")
    parser.add_argument("--jobs", type=int, help="processes of one thread each; default the number of cores")
    parser.add_argument("--data", help="instead of the recipe's data: a folder")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of the recipe's")
    parser.add_argument("--methods", nargs="+", help="instead of the recipe's")
    parser.add_argument("--trials", type=int, help="instead of the recipe's")
    options = parser.parse_args(argv)
    from dataclasses import replace

    from .compare import compare, load_recipe

    given = {k: v for k in ("data", "seeds", "methods", "trials") if (v := getattr(options, k)) is not None}
    recipes = [replace(load_recipe(recipe), **given) for recipe in options.recipe]
    folder = Path(options.output_dir)
    check_writable(options.output_dir)
    for recipe in recipes:
        print(compare(recipe, folder / recipe.name, options.jobs, models_dir=options.models_dir or folder / "models"))


COMMANDS = {"compare": compare_command}


def main() -> None:
    """Dispatch on the first word."""
    argv = sys.argv[1:]
    if argv and argv[0] in COMMANDS:
        run(lambda: COMMANDS[argv[0]](argv[1:]))
    parser = CommandParser(prog="hf-unlearn", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.description = "\n".join(f.__doc__ for f in COMMANDS.values())
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", choices=sorted(COMMANDS))
    parser.parse_args(argv)


if __name__ == "__main__":
    main()
