"""The decode cache: the same pixels as decoding afresh, whatever happens while it is built."""

import errno
import json
import logging
import multiprocessing
import os
import pickle
import random
import signal
import stat
import subprocess
import sys
import time
import zlib
from collections import namedtuple
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saliency_entropy.data import cache as cache_module
from saliency_entropy.data.cache import ITEMS, CachedArrays, DecodeCache
from saliency_entropy.data.images import load_image
from saliency_entropy.errors import UserError

SHAPE = (6, 6, 3)
COUNT = 2 * ITEMS + 40  # items: two whole chunks and a small one


def first(files: Sequence[Path]) -> np.ndarray:
    return load_image(files[0], 6)


def logged(journal: Path, pause: float, files: Sequence[Path]) -> np.ndarray:
    """Decode, and note it in a file, in a way that is whole in spite of other processes."""
    handle = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{Path(str(files[0])).name}\n".encode())
    os.close(handle)
    time.sleep(pause)
    return first(files)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path]]:
    """Images of noise, to be read only."""
    root = tmp_path_factory.mktemp("images")
    return draw(root, COUNT)


def draw(root: Path, count: int) -> list[tuple[Path]]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    for number in range(count):
        Image.fromarray(pixels[number]).save(root / f"{number}.png")
    return [(root / f"{number}.png",) for number in range(count)]


def cache(folder: Path, **transform: object) -> DecodeCache:
    return DecodeCache(folder, {"size": 6, **transform}, SHAPE, np.uint8)


def chunks(folder: Path) -> dict[Path, int]:
    """The chunk files, with what tells a file from one that replaced it."""
    return {path: path.stat().st_ino for path in sorted(folder.rglob("*.npy"))}


def whole(arrays: CachedArrays, items: Sequence[Sequence[Path]]) -> bool:
    return len(arrays) == len(items) and all(
        np.array_equal(arrays[index], first(files)) for index, files in enumerate(items)
    )


def nothing_half_written(folder: Path) -> bool:
    return not list(folder.rglob("*.tmp"))


def never(_: Sequence[Path]) -> np.ndarray:
    raise AssertionError("decoded again")


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_arrays_are_those_of_decoding_afresh(tmp_path: Path, drawn: list, workers: int) -> None:
    assert whole(cache(tmp_path / "new" / "cache").open(drawn, first, workers), drawn)
    again = cache(tmp_path / "new" / "cache").open(drawn, never, workers)
    assert whole(again, drawn)
    assert again.broken == {}
    assert again[3].dtype == np.uint8
    with pytest.raises(IndexError):
        again[COUNT]
    with pytest.raises(IndexError):
        again[-1]


def test_every_kind_of_image(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (9, 14, 4), dtype=np.uint8)
    rgba = Image.fromarray(noise)
    turned = Image.Exif()
    turned[0x0112] = 8
    for name, image, options in (
        ("rgb.png", rgba.convert("RGB"), {}), ("rgba.png", rgba, {}), ("grey.png", rgba.convert("L"), {}),
        ("palette.png", rgba.convert("RGB").quantize(7), {}), ("one.png", rgba.convert("1"), {}),
        ("cmyk.jpg", rgba.convert("CMYK"), {}), ("a.webp", rgba, {}), ("a.bmp", rgba.convert("RGB"), {}),
        ("turned.jpg", rgba.convert("RGB"), {"exif": turned}),
    ):  # fmt: skip
        image.save(tmp_path / name, **options)
    items = [(path,) for path in sorted(tmp_path.iterdir())]
    assert whole(cache(tmp_path / "cache").open(items, first), items)


def test_an_array_is_the_callers_own(tmp_path: Path, drawn: list) -> None:
    arrays = cache(tmp_path).open(drawn[:3], first)
    arrays[1][:] = 0
    assert whole(arrays, drawn[:3])


def test_an_item_of_several_files_and_one_of_none(tmp_path: Path, drawn: list) -> None:
    def mean(files: Sequence[Path]) -> np.ndarray:
        return np.mean([load_image(file, 2)[..., 0] for file in files], axis=0, dtype=np.float32)

    items = [(drawn[0][0], drawn[1][0]), (), drawn[2], (drawn[0][0], drawn[2][0])]
    arrays = DecodeCache(tmp_path, {}, (2, 2), np.float32).open(items, mean)
    for index in (0, 2, 3):
        np.testing.assert_array_equal(arrays[index], mean(items[index]))
    np.testing.assert_array_equal(arrays[1], np.zeros((2, 2), np.float32))
    moved = [(drawn[0][0],), (drawn[1][0],), drawn[2], items[3]]  # the same files in turn, but of other items
    np.testing.assert_array_equal(DecodeCache(tmp_path, {}, (2, 2), np.float32).open(moved, mean)[0], mean(moved[0]))


def test_no_items(tmp_path: Path) -> None:
    assert len(cache(tmp_path / "cache").open([], never)) == 0


@pytest.mark.parametrize("change", ["content", "mtime"])
def test_a_changed_file_costs_its_chunk_only(tmp_path: Path, change: str) -> None:
    items = draw(tmp_path, COUNT)
    cache(tmp_path / "cache").open(items, first)
    before = chunks(tmp_path / "cache")
    path = items[ITEMS + 1][0]
    status = path.stat()
    if change == "content":  # of another size at the same time
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
        assert path.stat().st_size != status.st_size
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    journal = tmp_path / "journal"
    assert whole(cache(tmp_path / "cache").open(items, partial(logged, journal, 0)), items)
    assert sorted(journal.read_text().split()) == sorted(path.name for (path,) in items[ITEMS : 2 * ITEMS])
    assert before.items() < chunks(tmp_path / "cache").items()  # and nothing was written over


def test_a_copy_that_keeps_size_and_time_is_decoded_again(tmp_path: Path) -> None:
    """As rsync -a makes it, where the root is a link to one version of the data and then to another."""
    for version, level in (("v1", 10), ("v2", 200)):
        (tmp_path / version).mkdir()
        Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(tmp_path / version / "a.bmp")
        os.utime(tmp_path / version / "a.bmp", ns=(10**18, 10**18))
    one, other = (tmp_path / version / "a.bmp" for version in ("v1", "v2"))
    while one.stat().st_ctime_ns == other.stat().st_ctime_ns:  # which the system counts in steps of milliseconds
        os.utime(other, ns=(10**18, 10**18))
    root = tmp_path / "root"
    for version, level in (("v1", 10), ("v2", 200)):
        root.unlink(missing_ok=True)
        root.symlink_to(tmp_path / version)
        assert (cache(tmp_path / "cache").open([[root / "a.bmp"]], first)[0] == level).all()


def test_what_else_decides_the_arrays_makes_other_chunks(
    tmp_path: Path, drawn: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = drawn[:3]
    half = partial(load_image, size=3)
    cache(tmp_path).open(items, first)
    np.testing.assert_array_equal(cache(tmp_path, crop=1).open(items, lambda files: 0 * first(files))[0], 0)
    small = DecodeCache(tmp_path, {"size": 6}, (3, 3, 3), np.uint8).open(items, lambda files: half(files[0]))
    np.testing.assert_array_equal(small[2], half(items[2][0]))
    for module, name in ((cache_module, "VERSION"), (cache_module.PIL, "__version__")):
        with monkeypatch.context() as changed:
            changed.setattr(module, name, 999)
            np.testing.assert_array_equal(cache(tmp_path).open(items, lambda files: first(files) // 2)[0],
                                          first(items[0]) // 2)  # fmt: skip
    assert whole(cache(tmp_path).open(items, never), items)


def test_a_relative_path_is_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = draw(tmp_path, 2)
    cache(tmp_path / "cache").open(items, first)
    monkeypatch.chdir(tmp_path)
    assert whole(cache(Path("cache")).open([(Path(path.name),) for (path,) in items], never), items)


def test_items_are_made_when_they_are_needed(tmp_path: Path, drawn: list) -> None:
    class Lazy(Sequence):
        def __len__(self) -> int:
            return COUNT

        def __getitem__(self, index: int) -> tuple[Path]:
            assert type(index) is int
            return (Path(str(drawn[index][0])),)

    arrays = cache(tmp_path).open(Lazy(), first)
    assert whole(arrays, drawn)
    assert len(pickle.dumps(arrays)) < 100 * COUNT / ITEMS + arrays.digests.nbytes + 1000  # no path of an image is kept


def _open_and_check(folder: Path, items: list, journal: Path) -> None:
    arrays = cache(folder).open(items, partial(logged, journal, 0.0005), 2)
    sys.exit(0 if whole(arrays, items) else 3)


def test_processes_that_open_at_once_share_the_work(tmp_path: Path, drawn: list) -> None:
    journal = tmp_path / "journal"
    fork = multiprocessing.get_context("fork")
    jobs = [fork.Process(target=_open_and_check, args=(tmp_path / "cache", drawn, journal)) for _ in range(8)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0] * 8
    assert sorted(journal.read_text().split()) == sorted(path.name for (path,) in drawn)  # each once
    assert nothing_half_written(tmp_path)


def test_a_daemon_builds_without_children(tmp_path: Path, drawn: list) -> None:
    fork = multiprocessing.get_context("fork")
    job = fork.Process(target=_open_and_check, args=(tmp_path / "cache", drawn, tmp_path / "journal"), daemon=True)
    job.start()
    job.join()
    assert job.exitcode == 0


def _build_slowly(items: list, folder: Path, workers: int, sender: Connection) -> None:
    os.setsid()  # so that its children can be found by their group

    def decode(files: Sequence[Path]) -> np.ndarray:
        # The last one is never done: whoever is to end this process may have its turn late.
        return logged(folder.with_suffix(".journal"), 1000 if files == items[-1] else 0.004, files)

    sender.send("ready")
    cache(folder).open(items, decode, workers)


def _started(items: list, folder: Path, workers: int) -> multiprocessing.Process:
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    job = fork.Process(target=_build_slowly, args=(items, folder, workers, sender))
    job.start()
    receiver.recv()
    return job


def _group_ended(group: int, within: float) -> bool:
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_killed_while_building(tmp_path: Path, drawn: list) -> None:
    chance = random.Random(0)
    for number, workers in enumerate((1, 2, 1, 2)):
        folder = tmp_path / str(number)
        job = _started(drawn, folder, workers)
        time.sleep(chance.uniform(0, 0.7))
        assert job.is_alive()
        job.kill()
        job.join()
        # Its children find out by themselves, and no lock of theirs is in the way after that.
        assert _group_ended(job.pid, 60)
        assert whole(cache(folder).open(drawn, first), drawn)
        assert nothing_half_written(folder)


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path, drawn: list) -> None:
    cache(tmp_path).open(drawn, first)
    (chunk, *others) = chunks(tmp_path)
    left = chunk.with_name(f"{chunk.stem}.0123456789abcdef.tmp")
    left.write_bytes(chunk.read_bytes()[:1000])
    chunk.unlink()
    assert whole(cache(tmp_path).open(drawn, first), drawn)
    assert not left.exists()
    assert set(chunks(tmp_path)) == {chunk, *others}


def test_interrupted_while_building(tmp_path: Path, drawn: list) -> None:
    job = _started(drawn, tmp_path, 2)
    time.sleep(0.3)
    os.killpg(job.pid, signal.SIGINT)  # as a terminal does it: to the children, too
    job.join()
    assert job.exitcode != 0
    assert _group_ended(job.pid, 60)
    assert nothing_half_written(tmp_path)
    assert whole(cache(tmp_path).open(drawn, first), drawn)


@pytest.mark.parametrize(
    ("error", "workers"), [(MemoryError, 1), (MemoryError, 2), (ZeroDivisionError, 2), (KeyboardInterrupt, 1)]
)
def test_other_errors_pass_and_leave_nothing(tmp_path: Path, drawn: list, error: type, workers: int) -> None:
    def failing(files: Sequence[Path]) -> np.ndarray:
        if Path(str(files[0])).name == f"{ITEMS + 3}.png":
            raise error("once")
        return first(files)

    with pytest.raises(error, match="once"):
        cache(tmp_path).open(drawn, failing, workers)
    assert nothing_half_written(tmp_path)
    assert whole(cache(tmp_path).open(drawn, first), drawn)


def test_a_killed_child_is_a_sentence(tmp_path: Path, drawn: list) -> None:
    def killed(files: Sequence[Path]) -> np.ndarray:
        if Path(str(files[0])).name == "9.png":
            os.kill(os.getpid(), signal.SIGKILL)
        return first(files)

    with pytest.raises(UserError, match=r"a process that decodes images was killed \(exit code -9\)"):
        cache(tmp_path).open(drawn, killed, 2)
    assert whole(cache(tmp_path).open(drawn, first), drawn)


@pytest.mark.parametrize(
    "damage",
    ["empty", "header only", "cut in the pixels", "cut at the end", "longer", "bit in the magic", "bit in the shape",
     "bit in the type", "bit in the order", "another array", "text"],
)  # fmt: skip
def test_a_damaged_chunk_is_built_again(tmp_path: Path, drawn: list, damage: str, caplog) -> None:
    cache(tmp_path).open(drawn, first)
    before = chunks(tmp_path)
    chunk = next(iter(before))
    content = bytearray(chunk.read_bytes())
    if damage.startswith("bit"):
        at = {"magic": 0, "shape": content.index(b"'shape': (") + 10, "type": content.index(b"|u1") + 1,
              "order": content.index(b"False")}[damage.split()[-1]]  # fmt: skip
        content[at] ^= 1
    content = {
        "empty": b"", "header only": content[:128], "cut in the pixels": content[:1000], "longer": content + b"\0",
        "cut at the end": content[:-2], "text": b"<html>404</html>",
    }.get(damage, content)  # fmt: skip
    chunk.write_bytes(content)
    if damage == "another array":
        np.save(chunk, np.zeros((ITEMS, 6, 6, 1), np.uint8))
    caplog.set_level(logging.WARNING)
    assert whole(cache(tmp_path).open(drawn, first), drawn)
    assert f"{chunk} of the decode cache is damaged" in caplog.text
    assert len(caplog.records) == 1
    after = chunks(tmp_path)
    assert after.pop(chunk) != before.pop(chunk)
    assert after == before


def test_a_disk_that_is_too_small(tmp_path: Path, drawn: list, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    need = COUNT * 6 * 6 * 3
    reserve = 20_000  # 2 % of a million bytes
    monkeypatch.setattr(cache_module, "disk_usage", lambda _: usage(1_000_000, 0, need + reserve - 1))
    with pytest.raises(UserError, match=r"data\.cache_folder=.*: the decoded images need 0\.00 GB, but only 0\.00 GB"):
        cache(tmp_path).open(drawn, never)
    assert chunks(tmp_path) == {}
    monkeypatch.setattr(cache_module, "disk_usage", lambda _: usage(1_000_000, 0, need + reserve))
    assert whole(cache(tmp_path).open(drawn, first), drawn)
    # Only what is missing needs room.
    next(iter(chunks(tmp_path))).unlink()
    monkeypatch.setattr(cache_module, "disk_usage", lambda _: usage(1_000_000, 0, ITEMS * 6 * 6 * 3 + reserve))
    assert whole(cache(tmp_path).open(drawn, first), drawn)


@pytest.fixture
def small_disk(tmp_path: Path):
    """A disk of 80 kB, which the chunks fill in the midst of the second."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=80k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(["mount", *options], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip(f"no disk may be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_fills_meanwhile(small_disk: Path, drawn: list, monkeypatch, workers: int) -> None:
    usage = namedtuple("usage", "total used free")
    cache(small_disk).open(drawn[: ITEMS + 1], first)
    before = chunks(small_disk)
    (small_disk / "others").write_bytes(bytes(15_000))
    with monkeypatch.context() as roomy:
        roomy.setattr(cache_module, "disk_usage", lambda _: usage(10**9, 0, 10**9))
        with pytest.raises(
            UserError, match=r"data\.cache_folder=.* cannot be written to \(No space left on device\); make room"
        ):
            cache(small_disk).open(drawn, first, workers)
    assert nothing_half_written(small_disk)
    assert before.items() <= chunks(small_disk).items()
    cache(small_disk).open(drawn[: ITEMS + 1], never)


def test_a_read_only_disk(small_disk: Path, drawn: list) -> None:
    cache(small_disk).open(drawn[:9], first)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert whole(cache(small_disk).open(drawn[:9], never), drawn[:9])  # what is there needs no lock
    with pytest.raises(UserError, match=r"data\.cache_folder=.* cannot be written to \(Read-only file system\)"):
        cache(small_disk).open(drawn[:10], first)
    with pytest.raises(UserError, match=r"cannot be written to .*; set it to a folder that you may write to"):
        cache(small_disk / "new").open(drawn[:10], first)


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EACCES])
def test_what_the_system_says_against_writing(tmp_path: Path, drawn: list, monkeypatch, number: int) -> None:
    def refused(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as failing:
        failing.setattr(os, "fsync", refused)
        with pytest.raises(UserError, match=f"{os.strerror(number)}.* or data.cache=none"):
            cache(tmp_path).open(drawn, first, 2)
    assert nothing_half_written(tmp_path)
    assert chunks(tmp_path) == {}


def test_a_folder_that_is_a_file(tmp_path: Path, drawn: list) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match=r"data\.cache_folder=.* cannot be written to \(File exists\)"):
        cache(tmp_path / "cache").open(drawn, first)


def test_broken_items_are_remembered_until_they_are_mended(tmp_path: Path) -> None:
    items = draw(tmp_path, COUNT)
    for number in (0, ITEMS + 5):
        items[number][0].write_bytes(b"no image")
    arrays = cache(tmp_path / "cache").open(items, first)
    assert list(arrays.broken) == [0, ITEMS + 5]
    assert arrays.broken[ITEMS + 5].startswith(f"{items[ITEMS + 5][0]} is not an image in a known format")
    np.testing.assert_array_equal(arrays[ITEMS + 5], np.zeros(SHAPE))
    np.testing.assert_array_equal(arrays[ITEMS + 6], first(items[ITEMS + 6]))
    assert cache(tmp_path / "cache").open(items, never).broken == arrays.broken
    for number in (0, ITEMS + 5):
        Image.fromarray(np.full((8, 8, 3), 77, np.uint8)).save(items[number][0])
    mended = cache(tmp_path / "cache").open(items, first)
    assert mended.broken == {}
    assert whole(mended, items)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_cannot_be_read_is_tried_again(
    tmp_path: Path, drawn: list, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    locked, opened = drawn[ITEMS + 5][0], Path.open

    def refusing(path: Path, *arguments: object) -> object:  # chmod does not bind root, who may run the tests
        if path == locked:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *arguments)

    journal = tmp_path / "journal"
    with monkeypatch.context() as refused:
        refused.setattr(Path, "open", refusing)
        for _ in range(2):
            arrays = cache(tmp_path / "cache").open(drawn, partial(logged, journal, 0), workers)
            assert arrays.broken == {
                ITEMS + 5: f"{locked} may not be read (permission denied); give yourself read access"
            }
            np.testing.assert_array_equal(arrays[ITEMS + 5], np.zeros(SHAPE))
            np.testing.assert_array_equal(arrays[ITEMS + 6], first(drawn[ITEMS + 6]))
    names = journal.read_text().split()
    assert names.count("0.png") == 1
    assert names.count(f"{ITEMS + 6}.png") == 2  # its chunk is decoded once at each launch, not once by each process
    arrays = cache(tmp_path / "cache").open(drawn, first, workers)
    assert arrays.broken == {}
    assert whole(arrays, drawn)


def test_a_missing_file_that_comes_back(tmp_path: Path) -> None:
    items = draw(tmp_path, 3)
    items[1][0].rename(tmp_path / "elsewhere.png")
    assert "does not exist" in cache(tmp_path / "cache").open(items, first).broken[1]
    (tmp_path / "elsewhere.png").rename(items[1][0])
    assert whole(cache(tmp_path / "cache").open(items, first), items)


def test_a_file_that_changes_while_it_is_decoded(tmp_path: Path) -> None:
    items = draw(tmp_path, 3)

    def touching(files: Sequence[Path]) -> np.ndarray:
        os.utime(items[1][0], ns=(1, 1))
        return first(files)

    with pytest.raises(UserError, match=r"0\.png to .*2\.png changed while it was decoded; start again"):
        cache(tmp_path / "cache").open(items, touching)
    assert chunks(tmp_path / "cache") == {}


def test_a_decoder_of_another_shape_is_refused(tmp_path: Path, drawn: list) -> None:
    with pytest.raises(ValueError, match=r"decoded \(6, 6\) uint8, not \(6, 6, 3\) uint8"):
        cache(tmp_path).open(drawn[:2], lambda files: first(files)[..., 0])


def _all_equal(arrays: CachedArrays, sums: list[int]) -> bool:
    return [int(arrays[index].sum()) for index in range(len(arrays))] == sums


def test_other_processes_read_a_pickle_of_it(tmp_path: Path, drawn: list) -> None:
    arrays = cache(tmp_path).open(drawn, first)
    sums = [int(first(files).sum()) for files in drawn]
    assert _all_equal(pickle.loads(pickle.dumps(arrays)), sums)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_all_equal, (arrays, sums))


def test_few_file_descriptors_are_held(tmp_path: Path, drawn: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "ITEMS", 2)
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("this system does not say which descriptors are open")
    before = len(list(descriptors.iterdir()))
    arrays = cache(tmp_path).open(drawn, first, 1)
    assert len(chunks(tmp_path)) == COUNT / 2 > 2 * cache_module.MAPPED
    assert whole(arrays, drawn)
    assert len(list(descriptors.iterdir())) <= before + cache_module.MAPPED


def test_a_cache_that_is_deleted_while_it_is_used(tmp_path: Path, drawn: list) -> None:
    arrays = cache(tmp_path).open(drawn[:2], first)
    next(iter(chunks(tmp_path))).unlink()
    with pytest.raises(UserError, match="was removed from the decode cache while it was in use"):
        arrays[0]


def test_nobody_else_may_write_to_it(tmp_path: Path, drawn: list) -> None:
    before = os.umask(0)
    try:
        cache(tmp_path / "a" / "b").open(drawn, first, 2)
    finally:
        os.umask(before)
    made = [tmp_path / "a", *(tmp_path / "a").rglob("*")]
    assert len(made) > 8
    assert not [path for path in made if path.stat().st_mode & (stat.S_IWOTH | stat.S_IWGRP)]


def test_progress_is_said(tmp_path: Path, drawn: list, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(cache_module, "REPORT", 0.05)
    for workers in (1, 2):
        caplog.clear()
        cache(tmp_path / str(workers)).open(drawn, partial(logged, tmp_path / "journal", 0.001), workers)
        assert f"decoding {COUNT} items into {tmp_path / str(workers)}" in caplog.messages[0]
        assert f"of {COUNT} items, " in caplog.messages[1]
        assert caplog.messages[-1].startswith(f"decode cache: {COUNT} items in ")
    caplog.clear()
    cache(tmp_path / "1").open(drawn, never)
    assert not caplog.messages


def test_each_item_has_the_digest_of_the_bytes_that_it_was_decoded_from(tmp_path: Path, drawn: list) -> None:
    items = [*drawn[: ITEMS + 1], drawn[1] + drawn[2], ()]
    contents = [[file.read_bytes() for file in files] for files in items]
    expected = [sum((len(content) << 32) + zlib.crc32(content) for content in files) for files in contents]
    for _ in range(2):  # made, and read again
        arrays = cache(tmp_path / "cache").open(items, every)
        assert (arrays.digests.dtype, arrays.digests.tolist()) == (np.int64, expected)


def every(files: Sequence[Path]) -> np.ndarray:
    return np.mean([load_image(file, 6) for file in files], axis=0).astype(np.uint8)


def test_a_chunk_of_a_version_without_digests_is_made_again_in_its_place(
    tmp_path: Path, drawn: list, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """So are its refusals, some of which a later version takes back; it needs no further room, and is no damage."""
    first_time = cache(tmp_path / "cache").open(drawn[:5], first)
    (path,) = chunks(tmp_path / "cache")
    whole = path.read_bytes()
    before = {"broken": {"1": "refused"}, "unreadable": False}
    path.write_bytes(whole[: whole.rindex(b'{"broken"')] + json.dumps(before).encode() + b"\n")
    monkeypatch.setattr(cache_module, "usable_bytes", lambda *_: 0)
    again = cache(tmp_path / "cache").open(drawn[:5], first)
    assert (again.broken, again.digests.tolist()) == ({}, first_time.digests.tolist())
    assert whole == path.read_bytes()
    assert "damaged" not in caplog.text
