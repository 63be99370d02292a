"""hf-unlearn report RUN_DIR: a run's record as one HTML page, or in the form of a benchmark."""

import json
from dataclasses import asdict
from pathlib import Path

from ...common.files import write_text
from ..terminal import CommandParser, check_writable


def report_command(argv: list[str]) -> None:
    """hf-unlearn report RUN_DIR"""
    parser = CommandParser(
        prog="hf-unlearn report",
        description="Write one HTML page of a finished run: metrics, images, curves, recipe. It needs no network.",
    )
    parser.add_argument("run_dir", help="Output folder of a run, with its unlearning_report.json.")
    parser.add_argument("--output", help="File to write; the default is RUN_DIR/report.html.")
    parser.add_argument(
        "--json", action="store_true", help="Print the path of the page, the verdict and the metrics as JSON."
    )
    parser.add_argument(
        "--export",
        nargs=2,
        metavar=("FORM", "OUT"),
        help="Write no page but what a benchmark reads to the folder OUT. FORM is unlearncanvas (the images that it "
        "classifies, 5,100 unless the flags below choose) or eval-unlearn (a configuration that runs the model).",
    )
    parser.add_argument("--original", help="Folder or Hub id of an adapter's base; the default is what was recorded.")
    parser.add_argument("--seeds", type=int, nargs="+", help="Seeds of UnlearnCanvas, instead of its five.")
    parser.add_argument("--styles", nargs="+", help="Styles of UnlearnCanvas, instead of all.")
    parser.add_argument("--objects", nargs="+", help="Objects of UnlearnCanvas, instead of all.")
    options = parser.parse_args(argv)
    chosen = {k: v for k in ("original", "seeds", "styles", "objects") if (v := getattr(options, k)) is not None}
    if options.export is not None:
        from ..exports import export_run

        kind, out = options.export
        print(export_run(kind, options.run_dir, out, **chosen))
        return
    if chosen:
        parser.error(f"--{next(iter(chosen))} is for --export")
    from ...common.bars import phase
    from ...report.outcome import outcome
    from ...report.page import PAGE_FILE, page
    from ...report.reading import read_record
    from ...report.verdict import verdict

    phase("drawing the page")
    record = read_record(options.run_dir)
    path = Path(options.output or Path(options.run_dir) / PAGE_FILE)
    if path.is_dir():
        raise ValueError(f"--output {path} is a folder: name a file")
    text = page(record, options.run_dir)
    check_writable(str(path.parent))
    write_text(path, text)
    found = outcome(record)
    if options.json:
        figures = {model: {name: m.as_dict() for name, m in row.items()} for model, row in record.figures.items()}
        said = {"report": str(path), "outcome": asdict(found), "verdict": verdict(record), "figures": figures}
        print(json.dumps(said))
        return
    print(f"{found.line}\n{verdict(record)}\n{path}")
