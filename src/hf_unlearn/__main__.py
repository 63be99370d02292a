"""The `hf-unlearn` command; `python -m hf_unlearn` is the same."""

import argparse
import sys

from . import __version__
from .cli.commands.check import check_command
from .cli.commands.compare import compare_command
from .cli.commands.demo import demo_command
from .cli.commands.env import env_command
from .cli.commands.estimate import estimate_command
from .cli.commands.publish import publish_command
from .cli.commands.report import report_command
from .cli.commands.saliency import saliency_command
from .cli.terminal import CommandParser, run

COMMANDS = {
    "compare": compare_command,
    "report": report_command,
    "check": check_command,
    "publish": publish_command,
    "demo": demo_command,
    "saliency": saliency_command,
    "estimate": estimate_command,
    "env": env_command,
}


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
