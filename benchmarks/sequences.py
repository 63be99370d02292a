"""Strategies against each other on sequences of requests: prints the tables of docs/sequences.md.

    python benchmarks/sequences.py                                      digits, ResNet, three scenarios, three seeds
    python benchmarks/sequences.py --memory 50 200 1000 --scenarios tasks
    python benchmarks/sequences.py --model digits_vit
    python benchmarks/sequences.py --data FOLDER --model cifar_resnet --steps 400 --batch 128

Every cell is kept in --folder: a run that is killed goes on where it was, and a finished one only prints.
"""

import argparse
import sys
import time
from concurrent.futures import as_completed
from itertools import product


def main(argv: list[str] | None = None) -> None:
    from hf_unlearn.compare.pool import pool_of
    from hf_unlearn.evaluation.tables import stamp
    from hf_unlearn.sequences.bench import SCENARIOS, Bench, cells
    from hf_unlearn.sequences.registry import STRATEGIES
    from hf_unlearn.sequences.tables import page

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits, or a folder of images with a train and a test part")
    parser.add_argument("--model", nargs="+", default=["digits_resnet"], help="names of small classifiers")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--methods", nargs="+", choices=list(STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--memory", nargs="+", type=int, default=[200], help="samples of the replay memory")
    parser.add_argument("--by", choices=["reservoir", "herding"], default="reservoir")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=80, help="outer steps of a stage")
    parser.add_argument("--batch", type=int, default=32, help="samples in a batch")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each; 0 stays in this one")
    parser.add_argument("--folder", default="sequences", help="where cells are kept")
    options = parser.parse_args(argv)
    how = (options.by, options.steps, options.batch)
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
    print(f"{stamp('torch', 'transformers')}\n\n{page([found[cell] for cell in wanted])}")


if __name__ == "__main__":
    main()
