"""Some of the corpus as real processes: the exit code that a shell sees, and nothing on standard output."""

import os
import subprocess
import sys

import pytest
from test_inputs import CASES, SCRIPTS, check_refused, contents, given, places, spoiled  # noqa: F401  (fixtures)

CHOSEN = ["yaml is torn", "unet a pickle", "classifier torn", "record figures of numbers", "training of 0 steps"]


@pytest.mark.long
@pytest.mark.parametrize("name", CHOSEN)
def test_a_process_ends_with_2_and_one_line(name, given, places, tmp_path):  # noqa: F811
    case = next(case for case in CASES if case.name == name)
    first, *rest = spoiled(case, given, places)
    script = next((str(path) for path in SCRIPTS if path.stem == first), None)
    start = ["-m", "hf_unlearn"] if script is None else [script]
    before = contents(tmp_path)
    done = subprocess.run(
        [sys.executable, *start, *rest], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    check_refused(case, (done.returncode, done.stdout, done.stderr), before, tmp_path)
    assert done.stdout == ""
