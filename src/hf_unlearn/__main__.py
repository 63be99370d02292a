"""The `hf-unlearn` command; `python -m hf_unlearn` is the same."""

import argparse
import sys

from . import __version__
from .cli.commands import COMMANDS
from .cli.terminal import CommandParser, run


def main() -> None:
    """Call the command that the first word names. Without a word, print what there is."""
    argv = sys.argv[1:]
    if argv and argv[0] in COMMANDS:
        run(lambda: COMMANDS[argv[0]](argv[1:]))
    parser = CommandParser(
        prog="hf-unlearn",
        usage="hf-unlearn COMMAND [--help] ...",
        description="Make a model forget something, keep the rest, and measure both.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    width = max(map(len, COMMANDS))
    lines = [f"  {command.name:{width}}  {command.help}" for command in COMMANDS.values()]
    parser.epilog = "commands:\n" + "\n".join(lines) + "\n\n`hf-unlearn COMMAND --help` lists the flags of one."
    parser.add_argument("--version", action="version", version=__version__)
    if not argv:
        parser.print_help()
        parser.exit()
    parser.add_argument("command", choices=sorted(COMMANDS), help=argparse.SUPPRESS)
    parser.parse_args(argv)


if __name__ == "__main__":
    main()
