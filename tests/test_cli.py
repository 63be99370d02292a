import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from hf_unlearn import UnlearnConfig
from hf_unlearn.cli import parsing as cli


@dataclass
class Flags:
    forget_class: list[str] | None = field(default=None)


@pytest.mark.parametrize(
    ("argv", "classes"),
    [
        ([], None),
        (["--forget_class", "a", "b"], ["a", "b"]),
        (["--forget_class", "a", "--forget_class", "b", "c"], ["a", "b", "c"]),
    ],
)
def test_list_flags_may_be_repeated(argv, classes):
    assert cli.parse((Flags,), argv)[0].forget_class == classes


def test_a_list_flag_replaces_what_the_yaml_says(tmp_path):
    (tmp_path / "c.yaml").write_text("forget_class: [a, b]")
    argv = ["--config", str(tmp_path / "c.yaml")]
    assert cli.parse((Flags,), argv)[0].forget_class == ["a", "b"]
    assert cli.parse((Flags,), [*argv, "--forget_class", "c", "--forget_class", "d"])[0].forget_class == ["c", "d"]


def test_help_of_the_training_arguments_is_printed(capsys):
    """argparse formats help texts with %, so a bare one in any of them would be an error."""
    with pytest.raises(SystemExit) as stop:
        cli.parse((UnlearnConfig,), ["--help"])
    assert stop.value.code == 0 and "--push_masks" in capsys.readouterr().out


ABORTS_AT_THE_END = """
import atexit, ctypes, sys
import torch
from hf_unlearn.cli import parsing as cli

def main():
    torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
    ctypes.pythonapi.Py_AtExit(ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p))
    atexit.register(print, "finished")
    print("measured")
    if sys.argv[2] == "wrong":
        raise ValueError("wrong")

cli.run(main)
"""


@pytest.mark.parametrize(("word", "code"), [("right", 0), ("wrong", 2)])
def test_one_of_several_processes_skips_the_end_of_the_interpreter(tmp_path, word, code):
    """gloo's threads abort there now and then, and the launcher stops the first process in its evaluation."""
    command = [sys.executable, "-c", ABORTS_AT_THE_END, str(tmp_path / "store"), word]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    assert done.stdout == "measured\nfinished\n" and ("error: wrong" in done.stderr) == (word == "wrong")
