"""hf-unlearn compare RECIPE: methods x seeds under one budget, against retraining."""

import shlex
from pathlib import Path

from ..terminal import CommandParser, check_writable


def compare_command(argv: list[str]) -> None:
    """hf-unlearn compare RECIPE"""
    parser = CommandParser(
        prog="hf-unlearn compare", description="Compare methods over seeds under one budget, against retraining."
    )
    parser.add_argument("recipe", nargs="+", help="YAML files, or names of shipped recipes.")
    parser.add_argument(
        "--output_dir",
        default="comparisons",
        help="Folder with one folder per recipe, where an interrupted call goes on.",
    )
    parser.add_argument("--models_dir", help="Folder of trained models; the default is OUTPUT_DIR/models.")
    parser.add_argument("--jobs", type=int, help="Processes of one thread each; the default is the number of cores.")
    parser.add_argument("--data", help="Folder of data, instead of the recipe's.")
    parser.add_argument("--original", help="Your own model that knows the forget data: folder or Hub id.")
    parser.add_argument("--retrained", help="Your own model that was trained without the forget data.")
    parser.add_argument("--seeds", type=int, nargs="+", help="Seeds, instead of the recipe's.")
    parser.add_argument("--methods", nargs="+", help="Methods, instead of the recipe's.")
    parser.add_argument("--trials", type=int, help="Search trials per method, instead of the recipe's.")
    parser.add_argument(
        "--redraw", action="store_true", help="Compute nothing: draw the charts again from the kept results.json."
    )
    options = parser.parse_args(argv)
    if options.redraw:
        for recipe in options.recipe:
            print(redrawn(Path(options.output_dir) / Path(recipe).stem))
        return
    if options.jobs is not None and options.jobs < 0:
        parser.error(f"--jobs must be at least 0 (in this process), got {options.jobs}")
    from ...compare import compare, load_recipe
    from ..runs.skeleton import need_modules

    need_modules("compare", "a comparison", "sklearn", "scipy", "optuna")

    chosen = {k: v for k in ("data", "original", "retrained", "seeds") if (v := getattr(options, k)) is not None}
    searched = {k: v for k in ("methods", "trials") if (v := getattr(options, k)) is not None}
    recipes = [load_recipe(recipe, **chosen, **searched) for recipe in options.recipe]
    folder = Path(options.output_dir)
    check_writable(options.output_dir)
    for source, recipe in zip(options.recipe, recipes):
        flags = [[f"--{k}", *map(str, v if isinstance(v, list) else [v])] for k, v in chosen.items()]
        command = shlex.join(["hf-unlearn", "compare", source, *(word for words in flags for word in words)])
        models_dir = options.models_dir or folder / "models"
        print(compare(recipe, folder / recipe.name, options.jobs, models_dir=models_dir, command=command))


def redrawn(folder: Path) -> Path:
    """Draw the chart of a finished comparison again, and return its path.

    Raises:
        ValueError: the folder holds no results.json of a comparison.
    """
    from ...common.untrusted import read_json
    from ...compare.chart import plot

    path, chart = folder / "results.json", folder / "tradeoff.png"
    if not path.is_file():
        raise ValueError(f"{path} does not exist: run the comparison, or name its folder's parent with --output_dir")
    kept = read_json(path)
    try:
        plot(kept["results"], chart, str(kept["recipe"]["name"]), float(kept["recipe"]["accuracy_limit"]))
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} lacks what a chart shows ({error!r}): run the comparison again") from error
    return chart
