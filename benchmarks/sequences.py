"""Strategies against each other on sequences of requests: prints the tables of docs/sequences.md.

    python benchmarks/sequences.py                                      digits, ResNet, three scenarios, three seeds
    python benchmarks/sequences.py --memory 50 200 1000 --scenarios tasks
    python benchmarks/sequences.py --model digits_vit
    python benchmarks/sequences.py --methods clu --extend 4                 as `hf-unlearn requests` does
    python benchmarks/sequences.py --methods clu --variants digits_ddpm     a generator's variants beside the memory
    python benchmarks/sequences.py --data FOLDER --image_column img --model cifar_resnet --steps 150 --batch 64

Every cell is kept in --folder: a run that is killed goes on where it was, and a finished one only prints. What the
tables need of a cell goes to --output too; --only_print makes them of that alone.
"""

import argparse
import json
import sys
import time
from concurrent.futures import as_completed
from itertools import product
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results/sequences.json"


def cells_kept(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text()) if path.exists() else []


def with_cells(kept: list[dict[str, Any]], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the tables need of `results`, in the place of what `kept` has of the same cells."""
    from hf_unlearn.sequences.tables import needed

    new = [needed(result) for result in results]
    there = [result["cell"] for result in new]
    every = [*(result for result in kept if result["cell"] not in there), *new]
    return sorted(every, key=lambda result: json.dumps(result["cell"], sort_keys=True))


def name_of(data: str) -> str:
    """A name of the data that tells nothing of this machine."""
    return Path(data).name


def main(argv: list[str] | None = None) -> None:
    from hf_unlearn.common.files import write_text
    from hf_unlearn.compare.pool import pool_of
    from hf_unlearn.evaluation.tables import stamp
    from hf_unlearn.sequences.bench import SCENARIOS, Bench, cells
    from hf_unlearn.sequences.registry import STRATEGIES
    from hf_unlearn.sequences.tables import page

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits, or a folder of images with a train and a test part")
    parser.add_argument("--image_column", default="image", help="of a folder of parquet files")
    parser.add_argument("--model", nargs="+", default=["digits_resnet"], help="names of small classifiers")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--methods", nargs="+", choices=list(STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--memory", nargs="+", type=int, default=[200], help="samples of the replay memory")
    parser.add_argument("--by", choices=["reservoir", "herding"], default="reservoir")
    parser.add_argument("--variants", default="", help="digits_ddpm, or a generator of variants of the memory")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=80, help="outer steps of a stage")
    parser.add_argument("--batch", type=int, default=32, help="samples in a batch")
    parser.add_argument("--extend", type=int, default=1, help="times --steps that what has not forgotten may take")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each; 0 stays in this one")
    parser.add_argument("--folder", default="sequences", help="where cells are kept")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where what the tables need of cells is kept")
    parser.add_argument("--only_print", action="store_true", help="print the tables of all cells in --output")
    options = parser.parse_args(argv)
    if options.only_print:
        print(page(cells_kept(options.output)))
        return
    how = (options.by, options.steps, options.batch, options.variants, options.image_column, options.extend)
    places = product(options.seeds, options.model, options.scenarios, options.memory, options.methods)
    wanted = cells(options.data, places, *how)
    bench, start = Bench(options.folder), time.perf_counter()
    found = {}
    with pool_of(options.jobs) as pool:
        running = {pool.submit(bench.result, cell): cell for cell in wanted}
        for done in as_completed(running):
            found[running[done]] = done.result()
            cell = running[done]
            print(f"{time.perf_counter() - start:6.0f} s  {cell}", file=sys.stderr, flush=True)
    results = [found[cell] for cell in wanted]
    named = [{**result, "cell": {**result["cell"], "data": name_of(cell.data)}} for cell, result in found.items()]
    write_text(options.output, json.dumps(with_cells(cells_kept(options.output), named)) + "\n")
    print(f"{stamp('torch', 'transformers')}\n\n{page(results)}")


if __name__ == "__main__":
    main()
