"""hf-unlearn export RUN_DIR: a result as one file that other programs read."""

from pathlib import Path

from ..terminal import CommandParser, check_writable

FORMATS = ("single_file", "kohya")
PRECISIONS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def export_command(argv: list[str]) -> None:
    """hf-unlearn export RUN_DIR --format single_file"""
    parser = CommandParser(
        prog="hf-unlearn export",
        description="Write a Stable Diffusion result as one file that A1111, ComfyUI and others read.",
    )
    parser.add_argument("run_dir", help="Output folder of a run, or any pipeline's folder.")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        required=True,
        help="single_file is the whole model (1.x, 2.x, XL), with an adapter merged into it; kohya is the adapter.",
    )
    parser.add_argument("--output", help="File to write; the default is RUN_DIR/RUN_DIR.safetensors, or _lora.")
    parser.add_argument("--original", help="Folder or Hub id of an adapter's base; the default is what was recorded.")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="Precision of the whole model's weights; the default is the stored one.",
    )
    options = parser.parse_args(argv)
    if options.format == "kohya":
        given = next((name for name in ("original", "precision") if getattr(options, name) is not None), None)
        if given:
            parser.error(f"--{given} is for --format single_file")
    name = Path(options.run_dir).resolve().name + ("_lora" if options.format == "kohya" else "")
    path = Path(options.output or Path(options.run_dir) / f"{name}.safetensors")
    if path.suffix != ".safetensors" or path.is_dir():
        raise ValueError(f"--output {path} is no .safetensors file: name one")
    if not Path(options.run_dir).is_dir():
        raise ValueError(f"{options.run_dir} is no folder: give the output folder of a run")
    check_writable(str(path.parent))
    from ..exports import export_file

    print(export_file(options.format, options.run_dir, path, options.original, PRECISIONS.get(options.precision)))
