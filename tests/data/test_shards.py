"""Tar shards: the same data as in a folder, whoever wrote them, and nothing read that is not the file meant."""

import gzip
import io
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import webdataset
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from saliency_entropy.data import FaceBatch, FaceDataModule, Manifest, read_manifest, table_file
from saliency_entropy.data.images import UnreadableFile, check_header
from saliency_entropy.data.listed_files import check_files
from saliency_entropy.data.shards import member as shard_member
from saliency_entropy.data.shards import read_shards
from saliency_entropy.data.shards import writer as shard_writer
from saliency_entropy.data.shards.writer import write_shards
from saliency_entropy.errors import UserError

ROOT = Path(__file__).parents[2]
SIZE, GRID = 32, (2, 2)
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><path d="M1 1L4 4" stroke="red" fill="none"/></svg>'


def noise(path: Path, seed: int, size: int = SIZE) -> None:
    """In grey, if it is a map."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size, size) if path.parent.name == "maps" else (size, size, 3)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with 24 images of several formats, some with maps: one, or those of two annotators, one an SVG."""
    folder = tmp_path / "data"
    rows = []
    for number in range(24):
        suffix = (".png", ".JPG", ".bmp")[number % 3]
        path = f"faces.v1/{number % 5}/image {number}{suffix}"
        noise(folder / path, number)
        human_map = ""
        if number % 4 == 0:
            human_map = f"maps/{number}.png"
            noise(folder / human_map, 100 + number)
        if number % 8 == 0:
            human_map += f";strokes/{number}.svg"
            (folder / "strokes").mkdir(exist_ok=True)
            (folder / f"strokes/{number}.svg").write_text(SVG)
        split = ("train", "train", "val", "test")[number // 6]
        rows.append((path, ("real", "synthetic")[number % 2], split, human_map, number / 7, "=cmd()"))
    table = pd.DataFrame(rows, columns=["path", "label", "split", "human_map", "score", "note"])
    table.to_csv(folder / "manifest.csv", index=False)
    return folder


@pytest.fixture
def manifest(root: Path) -> Manifest:
    return read_manifest(root / "manifest.csv")


@pytest.fixture
def output(manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shards of that folder, of about four images each."""
    monkeypatch.setattr(shard_writer, "MEGABYTE", 10_000)
    write_shards(manifest, tmp_path / "shards", 1)
    return tmp_path / "shards"


def tars(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar"))


def bytes_of(manifest: Manifest, name: str) -> bytes:
    with manifest.file(name).open("rb") as file:
        return file.read()


def edit_index(folder: Path, change: Callable[[list[dict]], None]) -> None:
    """Change the rows of a manifest of shards, its index included."""
    table = pq.read_table(folder / "manifest.parquet")
    rows = table.to_pylist()
    change(rows)
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), folder / "manifest.parquet")


def refused(message: str, *folders: Path) -> None:
    with pytest.raises(UserError, match=message):
        check_files(read_shards(folders))


# The same data


def test_shards_hold_the_table_and_the_bytes_of_the_folder(root: Path, manifest: Manifest, output: Path) -> None:
    again = read_shards([output])
    pd.testing.assert_frame_equal(again.table, manifest.table)
    check_files(again)
    assert len(tars(output)) > 3
    names = [*manifest.table["path"], *";".join(filter(None, manifest.table["human_map"])).split(";")]
    assert len(names) == 24 + 6 + 3
    for name in names:
        file = again.file(name)
        assert bytes_of(again, name) == (root / name).read_bytes()
        assert file.stat().st_size == (root / name).stat().st_size
        assert file.suffix == (root / name).suffix
    assert again.where(0) == manifest.where(0)


@pytest.mark.parametrize(
    "options",
    [
        {"cache": "memory"},
        {"cache": "disk", "cache_folder": "cache"},
        {"cache": "none", "num_workers": 0},
        {"cache": "none", "num_workers": 2},
    ],
)
def test_the_batches_are_those_of_the_folder(
    root: Path, output: Path, options: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def batches(source: Callable[[], Manifest], **options: object) -> list[FaceBatch]:
        data = FaceDataModule(
            "made-up", source, image_size=16, interpolation="bilinear", batch_size=5, seed=3, map_size=GRID, **options
        )
        data.setup()
        train = data.train_dataloader()
        epochs = []
        for epoch in range(2):
            train.batch_sampler.sampler.set_epoch(epoch)
            epochs += list(train)
        return epochs + [batch for loader in data.predict_dataloader() for batch in loader]

    folder = batches(partial(read_manifest, root / "manifest.csv"), num_workers=0)
    assert [len(batch.row) for batch in folder] == [5, 5, 2, 5, 5, 2, 5, 1, 5, 1]
    assert torch.cat([batch.has_map for batch in folder]).sum() == 9
    for one, other in zip(folder, batches(partial(read_shards, [output]), **options), strict=True):
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def test_webdataset_reads_the_shards(root: Path, manifest: Manifest, output: Path) -> None:
    samples = list(webdataset.WebDataset([str(path) for path in tars(output)], shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in samples] == [f"{row:09d}" for row in range(24)]
    first = samples[0]
    assert sorted(kind for kind in first if kind[0] != "_") == ["json", "map0.png", "map1.svg", "png"]
    with Image.open(root / "faces.v1/0/image 0.png") as image:
        assert np.array_equal(first["png"], np.asarray(image))
    assert first["json"] == {
        "path": "faces.v1/0/image 0.png", "label": "real", "split": "train", "generator": "", "source": "",
        "human_map": "maps/0.png;strokes/0.svg", "score": manifest.table["score"][0], "note": "=cmd()",
    }  # fmt: skip
    assert first["map1.svg"] == SVG.encode()


def test_shards_may_be_spread_over_folders(manifest: Manifest, output: Path, tmp_path: Path) -> None:
    other = tmp_path / "other disk"
    other.mkdir()
    for path in tars(output)[::2]:
        shutil.move(path, other / path.name)
    again = read_shards([other, output])
    assert bytes_of(again, manifest.table["path"][0]) == bytes_of(manifest, manifest.table["path"][0])
    shutil.copy(output / "manifest.parquet", other)  # a copy of the manifest is no second data set
    assert len(read_shards([other, output]).table) == 24


def contents(manifest: Manifest, names: list[str]) -> list[bytes]:
    return [bytes_of(manifest, name) for name in names]


def test_processes_and_threads_share_no_position(manifest: Manifest, output: Path) -> None:
    again = read_shards([output])
    names = list(manifest.table["path"]) * 4
    expected = contents(manifest, names)
    assert contents(again, names[:2]) == expected[:2]  # a descriptor that forked processes inherit
    with multiprocessing.get_context("fork").Pool(2) as pool, ThreadPoolExecutor(4) as threads:
        results = [pool.apply_async(contents, (again, names)) for _ in range(2)]
        assert list(threads.map(partial(bytes_of, again), names)) == expected
        assert all(result.get(60) == expected for result in results)


def test_a_process_that_was_not_forked_gets_all_of_it(manifest: Manifest, output: Path) -> None:
    shard_member._opened.cache_clear()
    again = pickle.loads(pickle.dumps(read_shards([output])))
    assert bytes_of(again, manifest.table["path"][5]) == bytes_of(manifest, manifest.table["path"][5])


def test_a_process_keeps_few_shards_open(manifest: Manifest, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_member, "_opened", lru_cache(1)(shard_member._opened.__wrapped__))
    again = read_shards([output])
    first, last = manifest.table["path"][0], manifest.table["path"][23]
    with again.file(first).open("rb") as file:
        descriptor = shard_member._opened(str(tars(output)[0])).descriptor
        start = file.read(10)
        assert bytes_of(again, last) == bytes_of(manifest, last)  # the first shard has to make way
        assert start + file.read() == bytes_of(manifest, first)
    del file
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_member_ends_where_it_ends(manifest: Manifest, output: Path) -> None:
    name = manifest.table["path"][1]
    whole = bytes_of(manifest, name)
    with read_shards([output]).file(name).open("rb") as file:
        assert file.seek(-3, io.SEEK_END) == len(whole) - 3
        assert file.read(100) == whole[-3:]
        assert file.seek(len(whole) + 5) == len(whole) + 5
        assert file.read(100) == b""
        file.seek(4)
        assert (file.seek(2, io.SEEK_CUR), file.read(5)) == (6, whole[6:11])
        with pytest.raises(ValueError, match="negative"):
            file.seek(-1)


def test_a_message_names_shard_and_member(root: Path, manifest: Manifest, output: Path) -> None:
    file = read_shards([output]).file(manifest.table["path"][0])
    assert str(file) == f"{tars(output)[0]}: 000000000.png"
    with pytest.raises(ValueError, match="read only"):
        file.open("wb")


def test_a_name_that_is_in_no_shard(output: Path) -> None:
    archive = read_shards([output]).archive
    assert archive.problem("faces.v1/none.png") == "does not exist"
    with pytest.raises(UserError, match=r"'faces.v1/none.png' is in no shard"):
        archive.file("faces.v1/none.png")


def test_names_with_the_same_hash_are_told_apart(output: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setattr("saliency_entropy.data.shards.reader._hash", lambda name: np.uint64(len(name)))
    again = read_shards([output])
    for name in again.table["path"]:
        assert bytes_of(again, name) == (root / name).read_bytes()
    assert again.archive.problem("x" * len(name)) == "does not exist"


# Writing


def test_the_same_data_give_the_same_shards(
    manifest: Manifest, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 0.0)
    write_shards(manifest, tmp_path / "twin", 1)
    for path in [*tars(output), output / "manifest.parquet", output / "plan.json"]:
        assert path.read_bytes() == (tmp_path / "twin" / path.name).read_bytes()


def test_an_interrupted_command_goes_on(
    manifest: Manifest, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin, written = tmp_path / "twin", []
    read = shard_writer._read

    def interrupted(file: Path) -> bytes:
        if file.name == "image 13.JPG":
            raise KeyboardInterrupt
        return read(file)

    monkeypatch.setattr(shard_writer, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_shards(manifest, twin, 1)
    there = [path.name for path in tars(twin)]
    assert 0 < len(there) < len(tars(output))
    assert sorted(path.name for path in twin.iterdir()) == [".lock", *there, "plan.json"]
    refused(r"plan\.json without a manifest\.parquet: the shards there are not all written", twin)

    (twin / ".images-000099.tar.01234567.part").write_bytes(b"of a process that was killed")
    monkeypatch.setattr(shard_writer, "_read", read)
    write = shard_writer._write_shard
    monkeypatch.setattr(shard_writer, "_write_shard", lambda *of: (written.append(of[1].name), write(*of)))
    write_shards(manifest, twin, 1)
    assert written == [path.name for path in tars(output) if path.name not in there]
    assert sorted(path.name for path in twin.iterdir()) == sorted(path.name for path in output.iterdir())
    for path in tars(output):
        assert path.read_bytes() == (twin / path.name).read_bytes()


def test_shards_of_other_data_are_kept(root: Path, manifest: Manifest, output: Path) -> None:
    before = {path: path.read_bytes() for path in output.iterdir()}
    message = r"holds shards of other data .* set it to another folder, or delete those"
    with pytest.raises(UserError, match=message):
        write_shards(manifest, output, 2)
    noise(root / "faces.v1/0/image 0.png", 77)
    with pytest.raises(UserError, match=message):
        write_shards(manifest, output, 1)
    assert before == {path: path.read_bytes() for path in output.iterdir()}


def test_a_folder_with_other_files_is_no_output(root: Path, manifest: Manifest) -> None:
    with pytest.raises(UserError, match=r"holds other files: faces\.v1; manifest\.csv; maps; strokes; set it to"):
        write_shards(manifest, root, 1)
    with pytest.raises(UserError, match="cannot be read as a folder"):
        write_shards(manifest, root / "manifest.csv", 1)


def test_a_shard_that_was_changed_is_found(manifest: Manifest, output: Path) -> None:
    shutil.copy(tars(output)[1], tars(output)[0])
    with pytest.raises(UserError, match=r"images-\w{8}-000000\.tar was changed, or belongs to other data; delete it"):
        write_shards(manifest, output, 1)


def test_all_files_that_are_no_good_are_named_and_nothing_is_written(
    root: Path, manifest: Manifest, tmp_path: Path
) -> None:
    (root / "faces.v1/1/image 1.JPG").write_bytes(b"no image")
    shutil.copy(root / "faces.v1/2/image 2.bmp", root / "maps/4.png")
    with pytest.raises(UserError, match=r"(?s)2 files cannot be used: row 3: .*image 1\.JPG is not an.* row 6: .*maps"):
        write_shards(manifest, tmp_path / "new", 1)
    (root / "faces.v1/1/image 1.JPG").unlink()
    (root / "strokes/8.svg").unlink()
    with pytest.raises(
        UserError, match=r"(?s)row 3, .*image 1\.JPG', does not exist.*row 10, .*8\.svg', does not exist"
    ):
        write_shards(manifest, tmp_path / "new", 1)
    assert not (tmp_path / "new").exists()


def test_a_file_that_changes_meanwhile(
    root: Path, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = shard_writer._read
    monkeypatch.setattr(shard_writer, "_read", lambda file: read(file) + b"more" * file.name.endswith(".bmp"))
    with pytest.raises(UserError, match=r"image 2\.bmp was changed while the shards were written"):
        write_shards(manifest, tmp_path / "new", 1)
    assert not tars(tmp_path / "new")


def test_too_little_room(manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # There would be room, but a part of the disk is left free.
    monkeypatch.setattr(shard_writer, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 0, 19_000_000))
    with pytest.raises(UserError, match=r"the shards need 0\.\d\d GB, but only 0\.00 GB are free there"):
        write_shards(manifest, tmp_path / "new", 1)
    assert not tars(tmp_path / "new")
    monkeypatch.undo()
    write_shards(manifest, tmp_path / "new", 2)  # no shard of another size is there
    assert len(tars(tmp_path / "new")) == 1


def test_a_full_disk_leaves_no_half_shard(manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, sample: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(webdataset.TarWriter, "write", full)
    with pytest.raises(UserError, match=r"cannot be written to \(No space left on device\); make room"):
        write_shards(manifest, tmp_path / "new", 1)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [".lock", "plan.json"]


def test_two_writers_do_not_mix(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with shard_writer.FileLock(tmp_path / "new" / ".lock"), pytest.raises(UserError, match="another process writes"):
        write_shards(manifest, tmp_path / "new", 1)


@pytest.mark.parametrize("megabytes", [0, 1.5, True, "256"])
def test_shard_sizes_that_are_none(manifest: Manifest, tmp_path: Path, megabytes: object) -> None:
    with pytest.raises(UserError, match=r"shard_megabytes is .*; give a whole number from 1 on"):
        write_shards(manifest, tmp_path / "new", megabytes)


def test_columns_that_no_shard_can_have(root: Path, tmp_path: Path) -> None:
    text = (root / "manifest.csv").read_text().replace("note", "__shard__", 1)
    (root / "manifest.csv").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.csv has column __shard__, which the index of the shards needs"):
        write_shards(read_manifest(root / "manifest.csv"), tmp_path / "new", 1)


def test_shards_may_be_written_again_in_another_size(manifest: Manifest, output: Path, tmp_path: Path) -> None:
    write_shards(read_shards([output]), tmp_path / "new", 1000)
    assert len(tars(tmp_path / "new")) == 1
    again = read_shards([tmp_path / "new"])
    pd.testing.assert_frame_equal(again.table, manifest.table)
    assert all(bytes_of(again, name) == bytes_of(manifest, name) for name in manifest.table["path"])


def test_the_command(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "experiments" / "shards.py"), "data=faces", f"data.root={root}", "output=out"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=400)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [
        "written: 24 images in 1 shards, 0.00 GB",
        "python experiments/train.py data=shards data.source.folders=[out]",
    ]
    assert len(read_shards(tmp_path / "out").table) == 24
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]
    refused_ = subprocess.run([*command[:-1], "output=new", "data.skip_broken=true"], capture_output=True, text=True,
                              cwd=tmp_path, timeout=400)  # fmt: skip
    assert refused_.returncode == 1
    assert "data.skip_broken leaves files out of a training, not of shards" in refused_.stderr


@pytest.mark.parametrize("data", sorted(path.stem for path in (ROOT / "conf" / "data").glob("*.yaml")))
def test_every_data_set_can_be_written(data: str) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("shards", [f"data={data}", "++data.root=DIR", "++data.source.folders=[DIR]"])
    assert callable(instantiate(cfg.data.source))  # it needs nothing that only training has


def test_the_options_are_those_of_a_folder() -> None:
    shards, faces = (OmegaConf.load(ROOT / "conf" / "data" / f"{name}.yaml") for name in ("shards", "faces"))
    del faces["root"], faces["source"], faces["name"], shards["name"]
    assert shards.pop("source") == {
        "_target_": "saliency_entropy.data.shards.read_shards", "_partial_": True, "folders": "???",
    }  # fmt: skip
    assert OmegaConf.to_container(shards) == OmegaConf.to_container(faces)


# Shards that are missing, cut off or others


def test_missing_shards_are_named_together(output: Path) -> None:
    counts = pd.read_parquet(output / "manifest.parquet")["__shard__"].value_counts()
    _, one, two, *_ = tars(output)
    for path in (one, two):
        path.unlink()
    refused(
        rf"2 of {len(counts)} shards are not in .*shards: {one.name} \({counts[one.name]} images\); "
        rf"{two.name} \({counts[two.name]} images\); copy them there, or add their folder to data\.source\.folders",
        output,
    )


def test_shards_of_other_data_are_not_taken_for_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same images in another order, all files of one size: nothing but the plan tells the shards apart."""
    monkeypatch.setattr(shard_writer, "MEGABYTE", 10_000)
    rows = []
    for number in range(9):
        noise(tmp_path / "data" / f"{number}.bmp", number)
        rows.append((f"{number}.bmp", ("real", "synthetic")[number % 2], "train"))
    for name, order in (("A", rows), ("B", rows[::-1])):
        pd.DataFrame(order, columns=["path", "label", "split"]).to_csv(tmp_path / "data" / "m.csv", index=False)
        write_shards(read_manifest(tmp_path / "data" / "m.csv"), tmp_path / name, 1)
    (tmp_path / "A" / "manifest.parquet").unlink()
    (tmp_path / "A" / "plan.json").unlink()
    again = read_shards([tmp_path / "A", tmp_path / "B"])
    for path in again.table["path"]:
        assert bytes_of(again, path) == (tmp_path / "data" / path).read_bytes()
    tars(tmp_path / "B")[0].unlink()
    refused(r"1 of \d+ shards are not in", tmp_path / "A", tmp_path / "B")


def test_copies_of_a_shard_have_to_be_the_same(
    manifest: Manifest, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(output, twin)
    name = manifest.table["path"][0]
    assert bytes_of(read_shards([output, twin]), name) == bytes_of(manifest, name)
    path = tars(twin)[1]
    whole, times = path.read_bytes(), path.stat()
    path.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    refused(
        rf"shards of one name are different: {tars(output)[1]} and {path}; delete those that .*manifest\.parquet, or",
        output, twin,
    )  # fmt: skip
    path.write_bytes(whole[:-512])
    refused(f"different: {path} and {tars(output)[1]}; delete", twin, output)

    def stale(*_: object, **__: object) -> None:
        raise OSError(116, "Stale file handle")

    path.unlink()
    (twin / "manifest.parquet").unlink()
    monkeypatch.setattr("filecmp.cmp", stale)
    refused(r"different: .*-000000\.tar and .*-000000\.tar \(one cannot be read: Stale file handle\)", output, twin)


def test_who_may_read_a_shard_is_the_users_to_say(manifest: Manifest, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_shards(manifest, tmp_path / "new", 1)
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in tars(tmp_path / "new")] == [0o600]


def test_a_truncated_shard(output: Path) -> None:
    path = tars(output)[0]
    size = path.stat().st_size
    os.truncate(path, size - 1)
    refused(rf"images-\w{{8}}-000000\.tar has {size - 1} bytes, not {size}; copy them again", output)


def test_a_compressed_shard(output: Path) -> None:
    path = tars(output)[0]
    path.write_bytes(gzip.compress(path.read_bytes()))
    refused(r"images-\w{8}-000000\.tar has \d+ bytes, not \d+", output)


def test_a_shard_replaced_by_another_of_its_size(manifest: Manifest, output: Path) -> None:
    """Packed again in another order: every offset is that of another image."""
    path = tars(output)[0]
    with tarfile.open(path) as tar:
        members = [(entry, tar.extractfile(entry).read()) for entry in tar]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for entry, content in reversed(members):
            tar.addfile(entry, io.BytesIO(content))
    again = read_shards([output])
    with pytest.raises(UserError, match=r"000000000\.png does not lie where the index of the shards says"):
        bytes_of(again, manifest.table["path"][0])


def test_a_shard_that_changes_while_it_is_in_use(manifest: Manifest, output: Path) -> None:
    again = read_shards([output])
    name = manifest.table["path"][0]
    whole = bytes_of(again, name)
    before = again.file(name).stat()
    os.utime(tars(output)[0], ns=(0, 0))
    with pytest.raises(UnreadableFile, match=r"images-\w{8}-000000\.tar was changed while it was in use; start again"):
        bytes_of(again, name)
    new = read_shards([output])
    assert bytes_of(new, name) == whole
    assert new.file(name).stat() != before  # so that nothing decoded from the former is taken for it
    tars(output)[0].unlink()
    shard_member._opened.cache_clear()
    with pytest.raises(UserError, match=r"images-\w{8}-000000\.tar: 000000000\.png does not exist"):
        check_header(new.file(name))


def move(rows: list[dict], **changes: int) -> None:
    rows[3]["__members__"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (partial(move, offset=2**62), r"points outside of the shards: row 5, 'faces\.v1/3/image 3\.png'"),
        (partial(move, offset=2**63 - 1), "points outside of the shards: row 5"),
        (partial(move, offset=-512), "points outside of the shards: row 5"),
        (partial(move, bytes=-1), "points outside of the shards: row 5"),
        (partial(move, bytes=2**63 - 1), "points outside of the shards: row 5"),
        (lambda rows: rows[3].update(__shard__="../secret.tar"), r"names what is no shard: '\.\./secret\.tar'"),
        (lambda rows: rows[3].update(__shard__="images-000000.tar"), "names what is no shard: 'images-000000.tar'"),
        (lambda rows: rows[3].update(__shard__="/etc/passwd"), "names what is no shard: '/etc/passwd'"),
        (lambda rows: rows[3].update(__members__=[]), "does not fit .* row 5 has 1 files but 0 members"),
        (lambda rows: rows[3].update(__members__=None), "the index has empty cells"),
        (lambda rows: rows[3]["__members__"][0].update(offset=None), "the index has empty cells"),
        (lambda rows: rows[3].update(__shard__=None), "the index has empty cells"),
        (lambda rows: rows[3].update(path="../x.png"), "path must be relative to the data root"),
        (lambda rows: rows[3].update(label="fake"), r"row 5 has 'fake' \(did you mean synthetic\?\)"),
    ],
)  # fmt: skip
def test_an_index_that_is_not_in_order(output: Path, change: Callable[[list[dict]], None], message: str) -> None:
    edit_index(output, change)
    refused(message, output)


def test_an_index_that_points_to_another_member(manifest: Manifest, output: Path) -> None:
    def swap(rows: list[dict]) -> None:
        one, other = rows[1]["__members__"][0], rows[2]["__members__"][0]
        one["offset"], other["offset"] = other["offset"], one["offset"]

    edit_index(output, swap)
    again = read_shards([output])
    for row in (1, 2):
        with pytest.raises(UserError, match=f"00000000{row}.* does not lie where the index"):
            bytes_of(again, manifest.table["path"][row])


def test_an_index_of_too_many_rows(output: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_file, "MOST_ROWS", 2)
    refused(rf"manifest\.parquet has {len(manifest.table)} rows, more than 2; keep only", output)


def test_manifests_that_are_no_index(root: Path, manifest: Manifest, output: Path) -> None:
    (output / "manifest.parquet").write_bytes(b"no")
    refused(r"manifest\.parquet cannot be read as a table", output)
    manifest.table.to_parquet(output / "manifest.parquet")
    refused(r"has no column __shard__ that says where the images lie in the shards; write them with", output)


def test_manifests_of_two_data_sets(output: Path, tmp_path: Path) -> None:
    shutil.copytree(output, tmp_path / "twin")
    edit_index(tmp_path / "twin", lambda rows: rows[0].update(note="another"))
    refused("are different; name the folders of one data set only", output, tmp_path / "twin")


def test_folders_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused("data.source.folders is empty")
    refused(r"none cannot be read as a folder \(No such file or directory\)", tmp_path / "none")
    (tmp_path / "file").touch()
    refused(r"file cannot be read as a folder \(Not a directory\)", tmp_path / "file")
    refused(r"there is neither a manifest\.parquet nor a \.tar", tmp_path)

    def locked(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", locked)
    refused(r"cannot be read as a folder \(Permission denied\); name .* give yourself read access", tmp_path)


# Shards of others: no manifest


def tar_of(path: Path, members: list[tuple[str, bytes] | tarfile.TarInfo], **options: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            entry = tarfile.TarInfo(member[0])
            entry.size = len(member[1])
            tar.addfile(entry, io.BytesIO(member[1]))
    return path.parent


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def said(**columns: object) -> bytes:
    return json.dumps({"label": "real", "split": "train", **columns}).encode()


SAMPLE = [("a/0.png", picture(0)), ("a/0.json", said())]


def test_without_their_manifest_shards_say_what_is_in_them(manifest: Manifest, output: Path) -> None:
    for name in ("manifest.parquet", "plan.json"):
        (output / name).unlink()
    again = read_shards([output])
    check_files(again)
    pd.testing.assert_frame_equal(again.table, manifest.table)
    for name in [*manifest.table["path"], "maps/8.png", "strokes/8.svg"]:
        assert bytes_of(again, name) == bytes_of(manifest, name)


@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_shards_of_another_origin(tmp_path: Path, format_: int) -> None:
    long = "é" * 150
    folder = tarfile.TarInfo("a")
    folder.type = tarfile.DIRTYPE
    members = [
        folder, ("a/7.png", picture(7)), ("a/7.cls", b"1\n"), ("a/7.json", b'{"split": "val", "boxes": [[1, 2]]}'),
        (f"{long}.PNG", picture(8)), (f"{long}.json", said(path="x/8.png")), (f"{long}.map0.png", picture(9)),
    ]  # fmt: skip
    again = read_shards(tar_of(tmp_path / "other" / "part.tar", members, format=format_))
    check_files(again)
    assert again.table["path"].tolist() == ["a/7.png", "x/8.png"]
    assert again.table["label"].tolist() == ["synthetic", "real"]
    assert again.table["human_map"].tolist() == ["", f"{long}.map0.png"]
    assert again.table["boxes"][0] == "[[1, 2]]"
    assert bytes_of(again, "a/7.png") == picture(7)
    assert bytes_of(again, "x/8.png") == picture(8)
    assert bytes_of(again, f"{long}.map0.png") == picture(9)
    assert again.where(1) == "image 2"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("0.png", picture(0))], r"sample 0: no \.json; give every image a \.json with label, split"),
        ([("0.json", said())], "sample 0: 0 images instead of one"),
        ([*SAMPLE, ("a/0.jpg", b"1")], "sample a/0: 2 images instead of one"),
        ([("0.png", picture(0)), ("0.json", b"[1]")], "its .json holds a list, not an object"),
        ([("0.png", picture(0)), ("0.json", b"{")], "its .json cannot be read"),
        ([("0.png", picture(0)), ("0.json", b"\xff")], "0.json is not UTF-8"),
        ([("0.png", picture(0)), ("0.json", b"[" * 900_000)], "its .json cannot be read"),
        ([("0.png", picture(0)), ("0.json", b'{"n": ' + b"9" * 9000 + b"}")], "its .json cannot be read"),
        ([("0.png", picture(0)), ("0.json", b" " * 1_000_001)], "0.json has 1000001 bytes, more than 1000000"),
        ([("0.png", picture(0)), ("0.json", b'{"label": "\\ud800"}')], "half of a surrogate pair"),
        ([*SAMPLE, ("a/0.cls", b"1")], "its .cls is '1': 0 is real, 1 synthetic, and a label in the .json the same"),
        ([*SAMPLE, ("a/0.cls", b"7")], "its .cls is '7'"),
        ([*SAMPLE, ("a/0.map1.png", picture(1))], r"its human_map names 1 files, but its maps are \[1\]"),
        ([("0.png", picture(0)), ("0.json", said(human_map="m.png"))], r"names 1 files, but its maps are \[\]"),
        ([*SAMPLE, (".hidden", b"")], r"part\.tar: \.hidden: its name has no key and extension"),
        ([("0.png", picture(0)), ("0.json", b"{}")], "has no column label and no column split"),
        ([("0.png", picture(0)), ("0.json", said(label="no"))], "column label must be real or synthetic: image 1 has"),
        ([("0.png", picture(0)), ("0.json", said(path="../x"))], r"path must be relative .* image 1 has '\.\./x'"),
        ([("0.png", b""), ("0.json", said())], r"'0\.png', is empty \(0 bytes\)"),
    ],
)  # fmt: skip
def test_samples_that_are_none(tmp_path: Path, members: list[tuple[str, bytes]], message: str) -> None:
    refused(message, tar_of(tmp_path / "other" / "part.tar", members))


def link(name: str, kind: bytes, target: str = "/etc/passwd") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (("../x.png", b"1"), r"holds what no shard may: '\.\./x\.png', leads out of the data root"),
        (("/tmp/x.png", b"1"), "'/tmp/x.png', leads out of the data root"),
        (("a/../../x.png", b"1"), "leads out of the data root"),
        (("C:\\x.png", b"1"), "leads out of the data root"),
        (("a\nb.png", b"1"), "is not UTF-8, or holds control characters"),
        (link("1.png", tarfile.SYMTYPE), "'1.png', is no plain file"),
        (link("1.png", tarfile.LNKTYPE, "a/0.png"), "'1.png', is no plain file"),
        (link("1.png", tarfile.CHRTYPE), "'1.png', is no plain file"),
        (link("1.png", tarfile.FIFOTYPE), "'1.png', is no plain file"),
        (("a/0.png", b"1"), "'a/0.png', is there twice"),
    ],
)  # fmt: skip
def test_members_that_no_shard_may_hold(
    tmp_path: Path, member: tuple[str, bytes] | tarfile.TarInfo, message: str
) -> None:
    refused(message, tar_of(tmp_path / "other" / "part.tar", [*SAMPLE, member]))
    assert [path.name for path in tmp_path.rglob("*")] == ["other", "part.tar"]  # nothing was unpacked


def header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tar: tar[: 512 + 100], "unexpected end of data"),
        (lambda tar: tar[: 4 * 512], "it ends at byte 2048 without an end marker"),
        (lambda tar: tar[:1024] + b"garbage!" * 64 + tar[1024:], "it ends at byte 1024 without an end marker"),
        (lambda tar: header("0.png", 10**12) + tar, "unexpected end of data"),
        (lambda tar: header("0.png", -1024) + tar, "the size of '0.png' is negative"),
        (gzip.compress, "is compressed, truncated, damaged or no tar file"),
        (lambda tar: b"", r"no tar file \(empty file\)"),
        (lambda tar: b"no tar" * 1000, "no tar file"),
    ],
)  # fmt: skip
def test_tars_that_are_damaged(tmp_path: Path, change: Callable[[bytes], bytes], message: str) -> None:
    folder = tar_of(tmp_path / "other" / "part.tar", SAMPLE, format=tarfile.USTAR_FORMAT)
    (folder / "part.tar").write_bytes(change((folder / "part.tar").read_bytes()))
    refused(message, folder)


def test_a_long_name_does_not_fill_the_memory(tmp_path: Path) -> None:
    """A name of a gigabyte, in a file that takes no room on the disk."""
    folder = tar_of(tmp_path / "other" / "part.tar", SAMPLE)
    entry = link("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    entry.size = 2**30
    with (folder / "part.tar").open("wb") as file:
        file.write(entry.tobuf(tarfile.GNU_FORMAT))
        file.truncate(2**30 + 10_240)
    refused(rf"a header claims {2**30} bytes", folder)


def test_compressed_and_repeated_tars_are_named(tmp_path: Path) -> None:
    folder = tar_of(tmp_path / "other" / "part.tar", SAMPLE)
    (folder / "more.tar.gz").write_bytes(gzip.compress((folder / "part.tar").read_bytes()))
    (folder / "more.tgz").write_bytes(gzip.compress((folder / "part.tar").read_bytes()))
    refused(r"(?s)more\.tar\.gz is compressed.*unpack it \(gzip -dc\).*more\.tgz is compressed", folder)
    twin = tar_of(tmp_path / "twin" / "part.tar", SAMPLE)
    for name in ("more.tar.gz", "more.tgz"):
        (folder / name).unlink()
    refused(r"two shards have the same name: .*part\.tar and .*part\.tar; name the folders of one", folder, twin)


def test_what_is_no_file_is_no_shard(output: Path, tmp_path: Path) -> None:
    """A named pipe, which would be waited for, and a folder."""
    path = tars(output)[0]
    path.unlink()
    os.mkfifo(path)
    refused(r"images-\w{8}-000000\.tar is no file; shards are tar files", output)
    (tmp_path / "other" / "part.tar").mkdir(parents=True)
    refused(r"part\.tar is no file", tmp_path / "other")
