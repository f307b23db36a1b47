"""Names of folders, whose a folder is, and files that are whole or not there."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from saliency_entropy.errors import UserError
from saliency_entropy.run.folder import (
    check_same_data,
    check_same_images,
    check_same_run,
    config_hash,
    finished_result,
    run_folder,
    run_subfolder,
    save_config,
    save_data_hash,
    study_folder,
)
from saliency_entropy.run.whole_files import remove_parts, write_atomically, written_whole


def config(**changes):
    return OmegaConf.merge(
        {
            "study": "demo",
            "runs_dir": "runs",
            "seed": 0,
            "threads": None,
            "logger": {"name": "csv"},
            "backbone": {"name": "tiny"},
            "data": {"root": "faces", "num_workers": 0},
            "trainer": {"max_epochs": 3, "accelerator": "cpu"},
        },
        changes,
    )


def plain(cfg):
    return OmegaConf.to_container(cfg)


def test_the_folder_of_a_run():
    assert run_folder("runs", "demo", "droid_cyborg", 3) == str(Path("runs", "demo", "droid_cyborg", "seed3"))
    assert study_folder("runs", "a" * 200) == "runs/" + "a" * 200
    assert study_folder("/data/runs", "weights/log_entropy=0.3") == "/data/runs/weights/log_entropy=0.3"


@pytest.mark.parametrize(
    "study", ["../evil", "a/../../b", "/etc", "a//b", "", ".hidden", "a;rm", "$(x)", "a\nb", "a b", "~", "a" * 201]
)
def test_a_study_cannot_leave_its_folder_or_speak_to_a_shell(study):
    with pytest.raises(UserError, match="cannot name a folder"):
        study_folder("runs", study)


@pytest.mark.parametrize("method", ["a/b", "..", "", "x;y"])
def test_nor_can_a_method(method):
    with pytest.raises(UserError, match="cannot name a folder"):
        run_folder("runs", "demo", method, 0)


@pytest.mark.parametrize("seed", [-1, 1.5, "one", 2**32, True])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(UserError, match=r"^seed is .*; give a whole number from 0 to 4294967295$"):
        run_folder("runs", "demo", "droid", seed)


def test_the_hash_is_of_what_decides_the_result():
    same = [
        config(threads=4),
        config(runs_dir="elsewhere"),
        config(data={"num_workers": 8}),
        config(logger={"name": "wandb"}),
    ]
    other = [
        config(seed=1),
        config(data={"root": "others"}),
        config(trainer={"max_epochs": 4}),
        config(backbone={"name": "vit"}),
    ]
    own = config_hash(plain(config()))
    assert all(config_hash(plain(cfg)) == own for cfg in same)
    assert len({config_hash(plain(cfg)) for cfg in other} | {own}) == len(other) + 1


def test_a_done_run_of_another_configuration_is_named_with_what_differs(tmp_path):
    save_config(tmp_path, config())
    write_atomically(tmp_path / "result.json", "{}")
    check_same_run(tmp_path, plain(config(threads=7)))
    with pytest.raises(
        UserError, match=r"backbone\.name is tiny there and vit here; seed is 0 there and 2 here"
    ) as error:
        check_same_run(tmp_path, plain(config(seed=2, backbone={"name": "vit"})))
    assert str(tmp_path) in str(error.value)
    assert str(error.value).endswith("): give this one a study= of its own, or delete that folder")


def test_the_same_images_elsewhere_may_be_given_by_the_name_they_had(tmp_path):
    save_config(tmp_path, config(data={"root": "faces"}))
    write_atomically(tmp_path / "result.json", "{}")
    with pytest.raises(
        UserError, match=r"data\.root is faces there and /scratch/faces here\): if these are the same im"
    ):
        check_same_run(tmp_path, plain(config(data={"root": "/scratch/faces"})))


def test_a_run_that_left_nothing_can_be_begun_anew(tmp_path):
    save_config(tmp_path, config())
    check_same_run(tmp_path, plain(config(seed=2)))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resume.ckpt").touch()
    with pytest.raises(UserError, match="another configuration"):
        check_same_run(tmp_path, plain(config(seed=2)))


def test_the_result_of_a_run(tmp_path):
    assert finished_result(tmp_path) is None
    write_atomically(tmp_path / "result.json", json.dumps({"seed": 1}))
    assert finished_result(tmp_path) == {"seed": 1}
    (tmp_path / "result.json").write_text('{"seed"')
    with pytest.raises(UserError, match=r"result\.json is not JSON"):
        finished_result(tmp_path)


@pytest.mark.parametrize(
    ("method", "seed"), [("../evil", 0), ("a/b", 0), ("$(x)", 0), ("droid", "../1"), ("droid", -1)]
)
def test_a_sweep_makes_no_folder_of_a_refused_name(method, seed):
    assert run_subfolder(method, seed) == "refused"
    assert run_subfolder("droid", 3) == "droid/seed3"


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_atomically(path, "first")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_the_name_of_a_file_is_made_to_last_after_its_content(tmp_path, monkeypatch):
    path, synced = tmp_path / "result.json", []

    def sync(handle):
        synced.append((Path(f"/proc/self/fd/{handle}").readlink().name, path.exists()))

    monkeypatch.setattr(os, "fsync", sync)
    write_atomically(path, "first")
    (content, there), (folder, renamed) = synced
    assert content.startswith(".result.json.")
    assert (there, folder, renamed) == (False, tmp_path.name, True)


def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path, monkeypatch):
    original = os.fsync

    def no_folders(handle):
        if Path(f"/proc/self/fd/{handle}").is_dir():
            raise OSError(22, "Invalid argument")
        original(handle)

    monkeypatch.setattr(os, "fsync", no_folders)
    write_atomically(tmp_path / "result.json", "first")
    assert (tmp_path / "result.json").read_text() == "first"


def test_what_a_kill_left_half_written_is_removed(tmp_path):
    left = tmp_path / "checkpoints" / ".resume.ckpt.abcd1234.part"
    left.parent.mkdir()
    left.touch()
    (tmp_path / "checkpoints" / "best.ckpt").touch()
    remove_parts(tmp_path)
    assert [path.name for path in left.parent.iterdir()] == ["best.ckpt"]


def test_the_next_writer_removes_what_a_killed_one_left_and_nothing_else(tmp_path):
    path = tmp_path / "a[1].html"
    left, other = tmp_path / ".a[1].html.abcd1234.part", tmp_path / ".b.html.abcd1234.part"
    left.touch()
    other.touch()
    with written_whole(path) as living:
        living.write_text("first")
        assert not left.exists()
        write_atomically(path, "second")  # another process at the same time
        assert living.exists()
    assert path.read_text() == "first"
    assert {*tmp_path.iterdir()} == {path, other}


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o007, 0o660)])
def test_the_umask_says_who_may_read_a_file(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "index.html", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "index.html").stat().st_mode & 0o777 == mode


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path) -> None:
    save_data_hash(tmp_path, "a")
    check_same_data(tmp_path, "b")  # nothing was trained yet
    save_data_hash(tmp_path, "b")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resume.ckpt").touch()
    check_same_data(tmp_path, "b")
    with pytest.raises(UserError, match=r"began with other data: .*; put them back, or delete \S+checkpoints to begin"):
        check_same_data(tmp_path, "a")
    check_same_data(tmp_path, "b")


def test_a_run_does_not_go_on_with_images_of_other_bytes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names, one = ["a.png", "b.png", "c.png"], np.array([1, 2, 3]).tobytes()
    other = np.array([1, 7, 3]).tobytes()
    check_same_images(tmp_path, names, other)
    check_same_images(tmp_path, names, one)  # nothing was trained yet
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resume.ckpt").touch()
    check_same_images(tmp_path, names, one)
    with pytest.raises(UserError) as caught:
        check_same_images(tmp_path, names, other)
    assert str(caught.value) == (
        f"{tmp_path} began with other images: of 3 training and validation images, 1 or their human maps have other "
        f"bytes now (b.png); put these files back, or delete {tmp_path / 'checkpoints'} to begin anew"
    )
    assert caplog.text == ""
    check_same_images(tmp_path, names, b"")
    assert f"whether {tmp_path} began with these very images is not known" in caplog.text
    check_same_images(tmp_path, names, one)
    (tmp_path / "image_digests").unlink()  # as of a version that kept none
    check_same_images(tmp_path, names, other)


def test_of_a_run_that_goes_on_the_bytes_say_whether_images_elsewhere_are_the_same(tmp_path: Path) -> None:
    save_config(tmp_path, config())
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resume.ckpt").touch()
    moved = OmegaConf.to_container(config(data={"root": "elsewhere"}))
    with pytest.raises(UserError, match="if these are the same images, give their folder that name"):
        check_same_run(tmp_path, moved)
    (tmp_path / "image_digests").touch()
    check_same_run(tmp_path, moved)
    with pytest.raises(UserError, match="holds a run of another configuration"):
        check_same_run(tmp_path, moved | {"seed": 1})
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(UserError, match="if these are the same images, give their folder that name"):
        check_same_run(tmp_path, moved)
