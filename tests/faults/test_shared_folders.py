"""Files that several processes write, links in the way, Windows' handles, and what killed processes leave behind."""

import multiprocessing
import os
import stat
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_unlearn.common import files
from hf_unlearn.common.files import atomic, atomic_folder, check_apart, sync, write_text


def write_often(path, number: int, errors) -> None:
    try:
        for _ in range(60):
            with atomic(path) as partial:
                save_file({"a": torch.full((1000,), float(number))}, partial)
    except BaseException as error:  # noqa: BLE001  what went wrong in another process
        errors.put(f"{type(error).__name__}: {error}")


def test_two_processes_and_four_threads_that_write_one_file_all_finish(tmp_path):
    path, context = tmp_path / "x.safetensors", multiprocessing.get_context("fork")
    errors = context.Queue()
    workers = [context.Process(target=write_often, args=(path, n, errors)) for n in (1, 2)]
    workers += [threading.Thread(target=write_often, args=(path, n, errors)) for n in (3, 4, 5, 6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert errors.empty(), errors.get()
    values = load_file(path)["a"]
    assert len(set(values.tolist())) == 1 and os.listdir(tmp_path) == ["x.safetensors"]


def test_two_exports_into_one_folder_both_finish(tmp_path):
    with atomic_folder(tmp_path) as one, atomic_folder(tmp_path) as two:
        assert one != two
        (one / "a").write_text("one")
        (two / "a").write_text("two")
    assert (tmp_path / "a").read_text() in ("one", "two") and os.listdir(tmp_path) == ["a"]


def test_a_link_under_the_temporary_name_is_not_followed(tmp_path, monkeypatch):
    """The name is random; here somebody guesses it."""
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "0" * 2 * size)
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.write_text("mine")
    folder.mkdir()
    (folder / "a.json.partial").symlink_to(victim)  # the name of earlier versions
    (folder / f".{'0' * 16}.partial").symlink_to(victim)
    with files._temporary(folder):  # somebody else is writing, so nothing there counts as left over
        (folder / f".{'0' * 16}.partial").symlink_to(victim)
        with pytest.raises(OSError, match="could not be written"):
            write_text(folder / "a.json", "theirs")
    assert victim.read_text() == "mine" and not (folder / "a.json").exists()
    write_text(folder / "a.json", "new")
    assert victim.read_text() == "mine" and (folder / "a.json").read_text() == "new"


def test_a_file_is_replaced_and_a_link_to_another_one_too(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "a").symlink_to(tmp_path / "victim")
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "victim").read_text() == "mine" and not (tmp_path / "a").is_symlink()


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_files_have_the_permissions_of_new_files(tmp_path, mask):
    """safetensors makes its own file, which only the owner may read."""
    before = os.umask(mask)
    try:
        with atomic(tmp_path / "w.safetensors") as partial:
            save_file({"a": torch.ones(2)}, partial)
        with atomic_folder(tmp_path / "out") as staged:
            save_file({"a": torch.ones(2)}, staged / "w.safetensors")
    finally:
        os.umask(before)
    for path in (tmp_path / "w.safetensors", tmp_path / "out/w.safetensors"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_what_a_killed_process_left_goes_and_what_is_being_written_stays(tmp_path):
    left, left_folder = tmp_path / f".{'a' * 16}.partial", tmp_path / f".{'b' * 16}.partial"
    left.write_text("half")
    left_folder.mkdir()
    (left_folder / "x").write_text("half")
    other = tmp_path / "mine.partial"
    other.write_text("not ours")
    with atomic(tmp_path / "one") as partial:
        assert not left.exists() and not left_folder.exists() and other.exists()
        partial.write_text("1")
        write_text(tmp_path / "two", "2")
        assert partial.exists()
    assert sorted(os.listdir(tmp_path)) == ["mine.partial", "one", "two"]


def test_without_locks_only_old_files_count_as_left_over(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    new, old = tmp_path / f".{'a' * 16}.partial", tmp_path / f".{'b' * 16}.partial"
    for path in (new, old):
        path.write_text("half")
    os.utime(old, (0, 0))
    write_text(tmp_path / "one", "1")
    assert new.exists() and not old.exists() and (tmp_path / "one").read_text() == "1"


def test_windows_flushes_through_writable_handles_and_no_folders(tmp_path, monkeypatch):
    """As there: fsync fails for a handle that cannot write, and a folder cannot be opened at all."""
    stock_open, stock_sync, writable, synced = os.open, os.fsync, {}, []

    def opens(path, flags, *args, **kwargs):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        handle = stock_open(path, flags, *args, **kwargs)
        writable[handle] = bool(flags & (os.O_RDWR | os.O_WRONLY))
        return handle

    def syncs(handle):
        if not writable[handle]:
            raise OSError(9, "Bad file descriptor")
        synced.append(handle)
        stock_sync(handle)

    monkeypatch.setattr(files, "WINDOWS", True)
    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(files.os, "open", opens)
    monkeypatch.setattr(files.os, "fsync", syncs)
    write_text(tmp_path / "a", "1")
    with atomic_folder(tmp_path / "out") as staged:
        (staged / "part").mkdir()
        (staged / "part/w").write_text("weights")
    sync(tmp_path)
    assert len(synced) == 2 and (tmp_path / "out/part/w").read_text() == "weights"


def test_what_is_read_is_not_written_over(tmp_path):
    model = tmp_path / "work/model"
    model.mkdir(parents=True)
    (tmp_path / "link").symlink_to(model)
    for output, says in ((model, "is"), (tmp_path / "link", "is"), (model / "out", "lies in"), (tmp_path, "holds")):
        with pytest.raises(ValueError, match=f"output_dir .* {says} the model .*: name a folder elsewhere"):
            check_apart(output, model, "the model")
    check_apart(tmp_path, model, "the model", holding=False)
    check_apart(tmp_path / "work/out", model, "the model")
    check_apart(tmp_path, "user/model", "the model")
