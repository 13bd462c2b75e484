"""Files are written completely or not at all, and what a killed process left is deleted."""

import os
import signal
import subprocess
import sys

import pytest
from tumour.errors import InputError
from tumour.files import atomic_write, remove_leftovers, save_json, size_and_times

from tests.conftest import ROOT

WRITER = """
import sys, time
from pathlib import Path
from tumour.files import atomic_write
with atomic_write(Path(sys.argv[1])) as part:
    part.write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that is writing `data.json`, and its temporary file."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "data.json"], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"writing\n"
    (part,) = tmp_path.glob(".*.data.json")
    yield process, part
    process.kill()
    process.communicate()


def test_what_a_killed_process_left_is_deleted_by_the_next_that_writes_the_same_file(writer, tmp_path):
    process, part = writer
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert part.read_bytes() == b"half" and not (tmp_path / "data.json").exists()
    others = [tmp_path / name for name in (".12.other.json", ".data.json", ".note.data.json", ".1.data.json~")]
    for path in others:
        path.touch()
    save_json(1, tmp_path / "data.json")
    assert not part.exists() and all(path.exists() for path in others)


def test_what_a_running_process_writes_is_not_deleted(writer, tmp_path):
    process, part = writer
    save_json(1, tmp_path / "data.json")
    remove_leftovers(tmp_path / "data.json")
    assert part.read_bytes() == b"half"


def test_two_processes_of_one_number_on_two_computers_do_not_write_to_one_temporary_file(tmp_path):
    with atomic_write(tmp_path / "data.json") as one, atomic_write(tmp_path / "data.json") as other:
        assert one != other and one.parent == other.parent == tmp_path
        one.write_text("1"), other.write_text("2")


def test_a_pipe_or_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe' is a device or a pipe"):
        save_json(1, tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_a_block_that_fails_changes_nothing(tmp_path):
    save_json(1, tmp_path / "data.json")
    with pytest.raises(KeyError), atomic_write(tmp_path / "data.json") as part:
        part.write_text("half")
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["data.json"]
    assert (tmp_path / "data.json").read_text() == "1\n"


def test_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "plain").touch()
    save_json(1, tmp_path / "data.json")
    assert (tmp_path / "data.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_change_in_a_folder_is_noticed_next_to_a_broken_link_and_if_the_time_is_kept(tmp_path):
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "1.dcm").write_text("1")
    before, stat = size_and_times(str(tmp_path)), (tmp_path / "1.dcm").stat()
    (tmp_path / "1.dcm").write_text("2")
    os.utime(tmp_path / "1.dcm", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert all(before) and size_and_times(str(tmp_path))[:2] == before[:2] and size_and_times(str(tmp_path)) != before
    assert size_and_times(str(tmp_path / "nowhere")) == (0, 0, 0)
