"""The README's Python blocks run as printed, and its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_python_blocks_run(tmp_path):
    code = "\n".join(blocks("python")).replace("without-7", "unlearned").replace("max_steps=50", "max_steps=2")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "unlearned/model_index.json").exists()


def test_script_commands_are_understood(tmp_path):
    commands = [line for block in blocks("bash") for line in block.replace("\\\n", "").splitlines()]
    scripts = [line.split("#")[0].split("scripts/")[1].split() for line in commands if "scripts/" in line]
    assert len(scripts) >= 7
    for folder in ("train", "val"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
    for script, *arguments in scripts:
        if "--config" in arguments:
            continue
        command = [sys.executable, str(ROOT / "scripts" / script), *arguments, "--dry_run"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
        assert done.returncode == 0 and "learning_rate" in done.stdout, done.stderr


def test_make_targets_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for target in re.findall(r"^make ([a-z-]+)", README, re.M):
        assert target in targets
