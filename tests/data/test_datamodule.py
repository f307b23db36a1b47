"""Batches: every image with its own label and map, the same whatever decodes them."""

import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from matplotlib import colormaps
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from saliency_entropy.data import FaceBatch, FaceDataModule, dataset, read_manifest
from saliency_entropy.data.table import SPLITS
from saliency_entropy.errors import UserError
from saliency_entropy.scores.images import file_digests

SIZE, GRID = 8, (2, 2)
CONF = Path(__file__).parents[2] / "conf"
FACES = Path(__file__).parents[3] / "shared" / "data" / "faces"


def grey(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set whose image number i is of grey i; every second training image has a map that is 1 in cell i mod 4
    and 0 elsewhere. The base names are all alike, and rows and files are in no order."""
    rows = []
    for number in range(40):
        split = "train" if number < 22 else "val" if number < 31 else "test"
        label = ("real", "synthetic")[number % 3 == 0]
        path, human_map = f"{split}/{number}/face.png", ""
        grey(tmp_path / path, np.full((SIZE, SIZE, 3), number))
        if split == "train" and number % 2 == 0:
            human_map = f"maps/{(number * 7) % 40}/face.png"
            cells = np.zeros(4)
            cells[number % 4] = 200
            grey(tmp_path / human_map, np.kron(cells.reshape(2, 2), np.ones((8, 8))))
        generator = {0: "gan", 6: "gan+vae", 33: "new"}.get(number, "") if label == "synthetic" else ""
        rows.append(f"{path},{label},{split},{generator},{human_map},{number}")
    np.random.default_rng(3).shuffle(rows)
    (tmp_path / "manifest.csv").write_text("\n".join(["path,label,split,generator,human_map,number", *rows]))
    return tmp_path


def module(root: Path, **options: object) -> FaceDataModule:
    defaults = {
        "name": "made-up", "source": partial(read_manifest, root / "manifest.csv"), "image_size": SIZE,
        "map_size": GRID, "interpolation": "bilinear", "batch_size": 5, "seed": 1, "num_workers": 0,
        "cache_folder": str(root.parent / "decoded"),
    }  # fmt: skip
    return FaceDataModule(**{**defaults, **options})


def ready(root: Path, stage: str | None = None, **options: object) -> FaceDataModule:
    data = module(root, **options)
    data.setup(stage)
    return data


def edit(root: Path, change: Callable[[str], str | None]) -> None:
    """Each row of the manifest as ``change`` gives it; None: left out."""
    lines = (root / "manifest.csv").read_text().splitlines()
    kept = [line for line in map(change, lines[1:]) if line is not None]
    (root / "manifest.csv").write_text("\n".join([lines[0], *kept]))


def equal(one: list[FaceBatch], other: list[FaceBatch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) for batch, twin in zip(one, other, strict=True) for a, b in zip(batch, twin, strict=True)
    )


CACHES = [{"cache": "memory"}, {"cache": "none"}, {"cache": "disk"}, {"cache": "disk", "cached_splits": SPLITS}]


@pytest.mark.parametrize("cache", CACHES)
def test_each_image_has_its_own_label_and_map(root: Path, cache: dict[str, object]) -> None:
    data = ready(root, **cache)
    seen = []
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for batch in loader:
            assert isinstance(batch, FaceBatch)
            dtypes = [part.dtype for part in batch]
            assert dtypes == [torch.uint8, torch.int64, torch.float32, torch.bool, torch.int64, torch.int64]
            for image, label, human_map, has_map, row, _ in zip(*batch, strict=True):
                number = int(data.manifest.table["number"][int(row)])
                expected = torch.zeros(4)
                if number < 22 and number % 2 == 0:
                    expected[number % 4] = 1
                assert torch.equal(image, torch.full((3, SIZE, SIZE), number, dtype=torch.uint8))
                assert label == (number % 3 == 0)
                # Bilinear: each cell is blurred a little into its neighbours, the least and the greatest stay.
                assert torch.equal(human_map.flatten() == 1, expected == 1)
                assert bool(has_map) == bool(expected.any())
                if not has_map:
                    assert torch.equal(human_map, torch.zeros(GRID))
                seen.append(number)
    assert sorted(seen) == list(range(40))


def test_channels_are_rgb(root: Path) -> None:
    grey(root / "train/0/face.png", np.broadcast_to([10, 20, 30], (SIZE, SIZE, 3)))
    data = ready(root)
    row = data.split_table("train").index[data.split_table("train")["number"] == "0"].item()
    images = {
        int(r): image for batch in data.train_dataloader() for r, image in zip(batch.row, batch.image, strict=True)
    }
    assert images[row][:, 0, 0].tolist() == [10, 20, 30]


def test_workers_and_caches_do_not_change_the_batches(root: Path) -> None:
    def batches(**options: object) -> list[FaceBatch]:
        data = ready(root, **options)
        train = data.train_dataloader()
        epochs = []
        for epoch in range(2):
            train.batch_sampler.sampler.set_epoch(epoch)
            epochs += list(train)
        return epochs + list(data.val_dataloader()) + list(data.test_dataloader())

    reference = batches()
    for cache in CACHES:
        for workers in (0, 2):
            assert equal(batches(**cache, num_workers=workers), reference)
    assert equal(batches(cache="disk", num_workers=1), reference)  # now from the files that others left


def test_maps_that_an_older_version_cached_are_not_used(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        drawn_with = {name: version for name, version in dataset.DRAWN_WITH.items() if name in ("resvg_py", "scipy")}
        older.setattr(dataset, "DRAWN_WITH", drawn_with)
        older.setattr(dataset, "load_human_map", lambda files, grid, **_: np.ones(grid, np.float32))
        assert all(item.human_map.all() for item in ready(root, cache="disk")._datasets["train"] if item.has_map)
    for item in ready(root, cache="disk")._datasets["train"]:
        assert item.human_map.min() == 0


def test_loading_leaves_the_global_random_state_alone(root: Path) -> None:
    data = ready(root)
    state = torch.get_rng_state()
    for batch in data.train_dataloader():
        assert len(batch.row)
    assert torch.equal(torch.get_rng_state(), state)


def order(data: FaceDataModule, epoch: int) -> list[int]:
    loader = data.train_dataloader()
    loader.batch_sampler.sampler.set_epoch(epoch)
    return torch.cat([batch.row for batch in loader]).tolist()


def test_order_is_a_function_of_seed_and_epoch(root: Path) -> None:
    data, twin, other = ready(root), ready(root), ready(root, seed=2)
    assert order(data, 0) == order(twin, 0)
    assert order(data, 1) == order(data, 1) != order(data, 0)
    rows = data.split_table("train").index.tolist()
    assert order(data, 0) != rows
    assert sorted(order(data, 0)) == rows
    # Neighbouring seeds share no epoch.
    assert not {tuple(order(data, e)) for e in range(4)} & {tuple(order(other, e)) for e in range(4)}


def test_evaluation_is_in_the_order_of_the_table(root: Path) -> None:
    data = ready(root, eval_batch_size=4)
    for split, loader in zip(("val", "test"), data.predict_dataloader(), strict=True):
        batches = [batch.row for batch in loader]
        assert torch.cat(batches).tolist() == data.split_table(split).index.tolist()
        assert max(map(len, batches)) == 4


@pytest.mark.parametrize(("batch_size", "skip", "sizes"), [
    (7, False, [7, 7, 7, 1]), (7, True, [7, 7, 7]), (5, True, [5, 5, 5, 5, 2]), (1, True, [1] * 22),
])  # fmt: skip
def test_last_batch_of_one(root: Path, batch_size: int, skip: bool, sizes: list[int]) -> None:
    data = ready(root, batch_size=batch_size, skip_last_batch_of_one=skip)
    assert [len(batch.row) for batch in data.train_dataloader()] == sizes
    assert sum(len(batch.row) for batch in data.val_dataloader()) == 9


def test_a_last_batch_that_several_devices_cannot_share_is_said(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = ready(root)
    images = len(data.split_table("train"))
    data.batch_size = images - 1
    monkeypatch.setattr(FaceDataModule, "_process", (0, 2))
    assert len(data.train_dataloader()) == 1
    assert "the last batch of every epoch, of 1 image, is left out: it cannot be shared by 2 devices" in caplog.text
    caplog.clear()
    monkeypatch.setattr(FaceDataModule, "_process", (0, 1))
    assert len(data.train_dataloader()) == 2
    assert "left out" not in caplog.text


def by_label(root: Path) -> None:
    header, *rows = (root / "manifest.csv").read_text().splitlines()
    (root / "manifest.csv").write_text("\n".join([header, *sorted(rows, key=lambda row: row.split(",")[1])]))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("batches", "sizes"), [(1, [2]), (3, [2, 2, 2]), (99, [2] * 11)])
def test_a_few_batches_for_debugging(root: Path, seed: int, batches: int, sizes: list[int]) -> None:
    """The same in every epoch, of both classes until the rarer, of 8 images, is used up; the seed's own."""
    by_label(root)
    loader = ready(root, batch_size=2, seed=seed, train_batches=batches).train_dataloader()
    first = list(loader)
    assert [len(batch.row) for batch in first] == sizes
    assert not hasattr(loader.batch_sampler.sampler, "set_epoch")  # a Trainer calls it before every epoch
    assert equal(list(loader), first)
    assert all(batch.label.sum() == 1 for batch in first[:8])
    rows = torch.cat([batch.row for batch in first]).tolist()
    assert len(set(rows)) == len(rows)
    of_seed = order(ready(root, batch_size=2, seed=seed), 0)
    for label in (0, 1):
        chosen = [int(row) for batch in first for row, its in zip(batch.row, batch.label, strict=True) if its == label]
        assert chosen == [row for row in of_seed if row in chosen]


@pytest.mark.parametrize("batches", [0, -1, 1.5, True, "one"])
def test_a_number_of_batches_that_is_none(root: Path, batches: object) -> None:
    with pytest.raises(UserError, match=r"^data\.train_batches is .*; give a whole number from 1 on, or null$"):
        module(root, train_batches=batches)


@pytest.mark.parametrize("option", [{"num_workers": -1}, {"num_workers": 1.5}, {"eval_batch_size": 0}])
def test_numbers_that_no_loader_takes(root: Path, option: dict[str, object]) -> None:
    name, value = next(iter(option.items()))
    with pytest.raises(UserError, match=rf"^data\.{name} is {value}; give a whole number from \d on"):
        module(root, **option)


def test_train_generators(root: Path) -> None:
    assert module(root).train_generators == ["gan", "vae"]
    assert module(root).relatives == []
    assert "relatives" not in ready(root).summary()


def test_relatives_are_of_the_family_of_a_training_generator(root: Path) -> None:
    """By the family of its rows, or called by its own name."""
    table = pd.read_csv(root / "manifest.csv")
    table["family"] = table["generator"].map({"gan": "GANs", "gan+vae": "GANs", "new": "GANs"}).astype(object)
    for family in ("GANs", "gans ", "gan", "VAE"):
        table.loc[table["generator"] == "new", "family"] = family
        table.to_csv(root / "manifest.csv", index=False)
        assert ready(root).summary()["relatives"] == ["new"]
    for family in ("diffusion", None, 3):
        table.loc[table["generator"] == "new", "family"] = family
        table.to_csv(root / "manifest.csv", index=False)
        assert module(root).relatives == []


def test_stages_prepare_what_they_need_once(root: Path) -> None:
    reads = []
    data = module(root, source=lambda: reads.append(1) or read_manifest(root / "manifest.csv"))
    data.setup("test")
    assert len(list(data.test_dataloader())) == 2
    (root / "val/22/face.png").write_text("broken")
    with pytest.raises(UserError, match=r"val/22/face\.png is not an image"):
        data.setup("fit")
    assert len(reads) == 1


# What cannot be trained on.


def test_empty_split(root: Path) -> None:
    edit(root, lambda line: None if ",test," in line else line)
    with pytest.raises(UserError, match=r"manifest\.csv: split test has no image; a study needs train, val and test"):
        module(root).setup()


@pytest.mark.parametrize(("split", "label"), [("train", "synthetic"), ("val", "real")])
def test_one_class_only(root: Path, split: str, label: str) -> None:
    edit(root, lambda line: None if f",{label},{split}," in line else line)
    with pytest.raises(UserError, match=f"split {split} has no {label} image"):
        module(root).setup()


def test_one_class_suffices_in_test(root: Path) -> None:
    edit(root, lambda line: None if ",real,test," in line else line)
    module(root).setup()


def test_a_missing_file(root: Path) -> None:
    (root / "test/35/face.png").unlink()
    with pytest.raises(UserError, match=r"'test/35/face\.png', does not exist"):
        module(root).setup("fit")


@pytest.mark.parametrize("options", [{}, {"check": "headers"}, {"cache": "none"}, {"cache": "disk"}])
def test_all_broken_images_before_training(root: Path, options: dict[str, object]) -> None:
    large = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
    for path in ("train/3/face.png", "val/25/face.png"):
        grey(root / path, large)
        (root / path).write_bytes((root / path).read_bytes()[:6000])
    (root / "test/36/face.png").write_text("no")
    grey(root / f"maps/{4 * 7}/face.png", np.zeros((8, 8)))
    with pytest.raises(UserError, match="4 files cannot be used") as caught:
        module(root, **options).setup("fit")
    lines = (root / "manifest.csv").read_text().splitlines()
    for number, path in ((3, "train/3"), (25, "val/25"), (36, "test/36"), (4, "maps/28")):
        row = next(row for row, line in enumerate(lines, start=1) if line.endswith(f",{number}"))
        assert f"row {row}: {root}/{path}/face.png is " in str(caught.value)


@pytest.mark.parametrize(("number", "cache"), [(4, "none"), (4, "memory"), (4, "disk"), (36, "memory")])
def test_a_map_that_is_constant_on_the_grid_only(root: Path, number: int, cache: str) -> None:
    """Whether or not its split is kept, it is found before training."""
    pixels = np.zeros((64, 64))
    pixels[5, 5] = 1
    grey(root / "maps/dim.png", pixels)

    def with_dim_map(line: str) -> str:
        path, label, split, generator, _, its = line.split(",")
        return f"{path},{label},{split},{generator},maps/dim.png,{its}" if its == str(number) else line

    edit(root, with_dim_map)
    lines = (root / "manifest.csv").read_text().splitlines()
    row = next(row for row, line in enumerate(lines, start=1) if line.endswith(f",{number}"))
    message = rf"row {row}: \S+/maps/dim\.png is a constant map on the CAM grid of 2 x 2 cells \(each is 0\)"
    with pytest.raises(UserError, match=message):
        module(root, cache=cache).setup("fit")
    ready(root, cache=cache, map_size=(64, 64))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_breaks_later(root: Path, num_workers: int) -> None:
    data = ready(root, cache="none", num_workers=num_workers)
    (root / "test/33/face.png").write_bytes(b"")
    lines = (root / "manifest.csv").read_text().splitlines()
    row = next(row for row, line in enumerate(lines, start=1) if line.endswith(",33"))
    with pytest.raises(UserError, match=rf"manifest\.csv: row {row}: \S+/test/33/face\.png is empty \(0 bytes\)"):
        list(data.test_dataloader())


def test_an_unknown_check(root: Path) -> None:
    with pytest.raises(UserError, match=r"data\.check is 'none'; it must be 'decode' or 'headers'"):
        module(root, check="none")


def test_an_interpolation_that_there_is_none_of(root: Path) -> None:
    """Told at once, not of every image."""
    with pytest.raises(UserError, match=r"^interpolation is 'cubic'; use one of nearest, box, bilinear"):
        module(root, interpolation="cubic")


def test_a_batch_holds_an_image_at_least(root: Path) -> None:
    with pytest.raises(UserError, match=r"data\.batch_size is 0; give a whole number from 1 on"):
        module(root, batch_size=0)


def test_caches_that_there_are_none_of(root: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.cache is 'ram'; it must be 'disk', 'memory' or 'none'$"):
        module(root, cache="ram")
    with pytest.raises(UserError, match=r"data\.cached_splits names 'valid'; choose from train, val, test"):
        module(root, cached_splits=["train", "valid"])
    with pytest.raises(UserError, match=r"data\.cache is 'disk', but data\.cache_folder is not given"):
        module(root, cache="disk", cache_folder=None)


def test_workers_are_as_many_as_cores_but_not_without_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, expected in ((1, 1), (8, 8), (128, 16)):
        monkeypatch.setattr("saliency_entropy.data.loaders.thread_count", lambda cores=cores: cores)
        data = module(root, num_workers=None, cache="none")
        assert data.num_workers == expected
    data = ready(root, num_workers=2, cache="memory")
    assert data.train_dataloader().num_workers == 0
    assert data.test_dataloader().num_workers == 2


# Doing without what cannot be used.


@pytest.fixture
def damaged(root: Path) -> Path:
    """Image 5 is missing, 25 and 36 are no images; the map of 4 is constant, that of 8 is missing."""
    (root / "train/5/face.png").unlink()
    for path in ("val/25/face.png", "test/36/face.png"):
        (root / path).write_text("no")
    grey(root / f"maps/{4 * 7}/face.png", np.zeros((8, 8)))
    (root / f"maps/{8 * 7 % 40}/face.png").unlink()
    return root


@pytest.mark.parametrize("cache", CACHES)
def test_what_cannot_be_used_is_left_out_and_counted(damaged: Path, cache: dict[str, object], caplog) -> None:
    data = ready(damaged, skip_broken=True, **cache)
    assert data.left_out == {
        "train": {"images": 1, "human_maps": 2},
        "val": {"images": 1, "human_maps": 0},
        "test": {"images": 1, "human_maps": 0},
    }
    numbers = {}
    for split, loader in zip(SPLITS, (data.train_dataloader(), *data.predict_dataloader()), strict=True):
        batches = list(loader)
        rows = torch.cat([batch.row for batch in batches]).tolist()
        of_rows = data.manifest.table.loc[rows, "number"].astype(int)
        numbers[split] = sorted(of_rows)
        for number, image, has_map, human_map in zip(
            of_rows,
            *(torch.cat([getattr(batch, name) for batch in batches]) for name in ("image", "has_map", "human_map")),
            strict=True,
        ):
            assert torch.equal(image, torch.full((3, SIZE, SIZE), number, dtype=torch.uint8))
            assert has_map == (split == "train" and number % 2 == 0 and number not in (4, 8))
            assert human_map.any() == has_map
    assert numbers["train"] == [number for number in range(22) if number != 5]
    assert numbers["val"] == [number for number in range(22, 31) if number != 25]
    assert numbers["test"] == [number for number in range(31, 40) if number != 36]
    assert "2 files cannot be used and are left out (data.skip_broken=true): row " in caplog.text
    assert "3 files cannot be used and are left out" in caplog.text
    assert "train/5/face.png" in caplog.text
    assert "is a constant map" in caplog.text


def test_a_broken_test_image_is_left_out_though_headers_would_do(root: Path) -> None:
    large = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
    grey(root / "test/36/face.png", large)
    (root / "test/36/face.png").write_bytes((root / "test/36/face.png").read_bytes()[:6000])
    data = ready(root, check="headers", skip_broken=True, cached_splits=["train"])
    assert data.left_out == {"test": {"images": 1, "human_maps": 0}}
    assert sum(len(batch.row) for batch in data.test_dataloader()) == 8


def test_an_image_is_counted_once_however_many_of_its_maps_are_broken(root: Path) -> None:
    edit(root, lambda line: line.replace("maps/28/face.png", "none/a.png;none/b.png"))  # image 4
    assert ready(root, skip_broken=True).left_out == {"train": {"images": 0, "human_maps": 1}}


def test_a_broken_file_does_not_decide_whose_maps_are_kept(root: Path) -> None:
    def kept(**options: object) -> set[str]:
        data = ready(root, human_maps={"fraction": 0.5}, **options)
        table = data.split_table("train")
        return set(table["path"][table["human_map"] != ""])

    whole = kept()
    lost = sorted(whole)[0]
    table = module(root).manifest.table.set_index("path")
    human_map = root / table["human_map"][lost]
    human_map.write_text("no")
    assert kept(skip_broken=True) == whole - {lost}
    human_map.unlink()
    assert kept(skip_broken=True) == whole - {lost}


def test_a_split_that_is_lost_with_what_is_left_out(root: Path) -> None:
    for folder in (root / "val").iterdir():
        if int(folder.name) % 3 == 0:
            (folder / "face.png").write_text("no")
    with pytest.raises(UserError, match="split val has no synthetic image"):
        module(root, skip_broken=True).setup()


def test_without_broken_files_nothing_is_left_out(root: Path, caplog) -> None:
    data = ready(root, skip_broken=True)
    assert data.left_out == {}
    assert "left out" not in caplog.text


def test_a_fraction_of_the_human_maps(root: Path) -> None:
    data = ready(root, human_maps={"fraction": 0.5, "seed": 1})
    assert (data.split_table("train")["human_map"] != "").sum() == round(11 / 2)
    assert sum(int(batch.has_map.sum()) for batch in data.train_dataloader()) == round(11 / 2)


# Human maps and templates.


def without_maps(line: str) -> str:
    *columns, _, number = line.split(",")
    return ",".join([*columns, "", number])


def test_methods_that_need_maps(root: Path) -> None:
    module(root).require_human_maps("method cyborg (term human_saliency)")
    edit(root, without_maps)
    with pytest.raises(UserError) as caught:
        module(root).require_human_maps("method cyborg (term human_saliency)")
    assert str(caught.value) == (
        f"method cyborg (term human_saliency) needs human maps, but no training image of data made-up "
        f"({root / 'manifest.csv'}) has one: add a column human_map, set data.template_maps=true for template maps of "
        "aligned faces, or choose a method without human maps"
    )
    module(root, template_maps=True).require_human_maps("method cyborg (term human_saliency)")


@pytest.mark.parametrize("cache", ["disk", "memory", "none"])
def test_templates_are_called_so(root: Path, cache: str, caplog: pytest.LogCaptureFixture) -> None:
    edit(root, without_maps)
    with caplog.at_level(logging.INFO):
        data = ready(root, template_maps=True, cache=cache, map_size=(7, 7))
        assert data.summary()["map_kind"] == "template"
    assert "data made-up, train: 14 real, 8 synthetic; 22 template maps (not human maps)" in caplog.text
    assert "test: 6 real, 3 synthetic; 0 template maps" in caplog.text
    assert data.split_table("val")["human_map"].unique().tolist() == ["template"]
    assert data.split_table("test")["human_map"].unique().tolist() == [""]
    val = next(iter(data.val_dataloader()))
    assert val.has_map.all()
    assert {(float(low), float(high)) for low, high in zip(*extremes(val.human_map), strict=True)} == {(0.0, 1.0)}
    assert len({tuple(cells.flatten().tolist()) for cells in val.human_map}) == 5
    assert not next(iter(data.test_dataloader())).has_map.any()


def extremes(maps: Tensor) -> tuple[Tensor, Tensor]:
    return maps.amin(dim=(1, 2)), maps.amax(dim=(1, 2))


def test_templates_do_not_replace_human_maps(root: Path) -> None:
    with pytest.raises(UserError, match=r"data\.template_maps is true, but .*manifest\.csv names 11 human maps"):
        module(root, template_maps=True).setup()


def test_options_of_human_maps_that_cannot_be(root: Path) -> None:
    """Told at once, not of every map."""
    with pytest.raises(UserError, match=r"^data\.human_maps\.blur is 2; give a number from 0 to 0\.5"):
        module(root, human_maps={"blur": 2})
    with pytest.raises(UserError, match=r"^data\.human_maps\.fraction is 1\.5; give a number from 0 to 1"):
        module(root, human_maps={"fraction": 1.5}).setup()
    edit(root, without_maps)
    with pytest.raises(
        UserError, match=r"data\.template_maps is true, but data\.human_maps\.blur, binarise and colormap are for"
    ):
        module(root, template_maps=True, human_maps={"binarise": 0.5}).setup()


def test_counts_of_human_maps_are_logged(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        module(root).setup("fit")
    assert "data made-up, train: 14 real, 8 synthetic; 11 human maps" in caplog.text


def draw_maps(root: Path, draw: Callable[[int], np.ndarray]) -> None:
    """Write every human map that the manifest names anew, from its number in the order of the files."""
    for number, path in enumerate(sorted(root.glob("maps/*/face.png"))):
        Image.fromarray(draw(number)).save(path)


def spot(number: int) -> np.ndarray:
    """A bright disc on a dark ground, elsewhere for each number."""
    y, x = np.mgrid[:28, :28]
    return np.where((x - 9 - number) ** 2 + (y - 14) ** 2 < 30, 255, 0).astype(np.uint8)


@pytest.mark.parametrize("cache", ["disk", "memory", "none"])
def test_implausible_maps_are_told_in_one_line(root: Path, caplog: pytest.LogCaptureFixture, cache: str) -> None:
    draw_maps(root, lambda number: spot(number) if number % 4 else 255 - spot(number))
    data = module(root, map_size=(7, 7), cache=cache)
    data.root = "my faces"
    data.setup()
    (line,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert line == (
        "data made-up: 3 of 11 human maps of train look inverted (a bright ground with dark marks); python "
        "experiments/data.py data=made-up data.root='my faces', with the other data options of this command, shows them"
    )
    caplog.clear()
    data.setup()  # everything is there already
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (spot, None),
        (lambda _: spot(0), "11 of 11 human maps of train are one and the same map;"),
        (lambda number: np.pad(np.full((28, 28 - number), 255, np.uint8), 2), "are a rectangle over nearly all of the"),
        (
            lambda number: np.pad(np.zeros((28, 28 - number), np.uint8), 2, constant_values=255),
            "are brightest at their",
        ),
    ],
)
def test_what_is_told_of_human_maps(root: Path, caplog: pytest.LogCaptureFixture, draw: Callable, said: str) -> None:
    draw_maps(root, draw)
    ready(root, map_size=(7, 7))
    lines = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [said in line for line in lines] == [True] if said else lines == []


def test_images_given_as_their_own_maps_are_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    for names in read_manifest(root / "manifest.csv").table[["path", "human_map"]].itertuples(index=False):
        pixels = rng.integers(0, 256, (SIZE, SIZE))
        for name in filter(None, names):
            grey(root / name, pixels)
    ready(root, map_size=(7, 7))
    assert "11 of 11 human maps of train show the image itself" in caplog.text


def test_coarse_grids_and_templates_are_not_judged(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    ready(root)  # its maps are two, on a grid of 2 x 2
    edit(root, without_maps)
    ready(root, map_size=(7, 7), template_maps=True)
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_heat_maps_are_refused_by_row_or_left_out_or_decoded(root: Path) -> None:
    draw_maps(root, lambda number: colormaps["jet"](gaussian_filter(spot(number), 2), bytes=True)[..., :3])
    with pytest.raises(UserError, match=r"11 files cannot be used: row \d+: .*face\.png is in colour; .*colormap=jet"):
        ready(root, map_size=(7, 7))
    assert ready(root, map_size=(7, 7), skip_broken=True).left_out["train"] == {"images": 0, "human_maps": 11}
    decoded = ready(root, map_size=(7, 7), human_maps={"colormap": "jet"})
    draw_maps(root, lambda number: gaussian_filter(spot(number), 2))
    for item, other in zip(decoded._datasets["train"], ready(root, map_size=(7, 7))._datasets["train"], strict=True):
        torch.testing.assert_close(item.human_map, other.human_map, atol=0.02, rtol=0)


def test_a_misspelt_test_generator_is_told_in_the_same_line(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit(root, lambda line: line.replace(",gan,", ",stylegan2,").replace(",new,", ",stlyegan2,"))
    ready(root)
    assert caplog.text.count("data.py") == 1
    assert "test generator 'stlyegan2' looks like a misspelling of training generator 'stylegan2'" in caplog.text


# The configs.


def composed(name: str, root: Path) -> FaceDataModule:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(
            "train",
            [f"data={name}", f"data.root={root}", f"runs_dir={root.parent}", f"backbone.image_size={SIZE}", "seed=3",
             "backbone.interpolation=bicubic", "protocol.skip_last_batch_of_one=true"],
        )  # fmt: skip
    return instantiate(cfg.data, map_size=GRID, _convert_="all")


def test_config_faces(root: Path) -> None:
    data = composed("faces", root)
    data.setup()
    assert (data.name, data.root, data.batch_size, data.seed, data.interpolation) == (
        "faces",
        str(root),
        20,
        3,
        "bicubic",
    )
    assert len(data.split_table("train")) == 22
    with pytest.raises(UserError, match=r"data\.root=/none does not exist"):
        composed("faces", Path("/none")).setup()


def test_config_und_cyborg(root: Path) -> None:
    with pytest.raises(UserError, match=r"original\.csv does not exist; data\.root must be the folder of the UND"):
        composed("und_cyborg", root).setup()


@pytest.mark.skipif(not FACES.is_dir(), reason="needs the faces data set, in shared/data beside the checkout")
def test_the_faces_data_set_is_in_order(caplog: pytest.LogCaptureFixture) -> None:
    data = composed("faces", FACES)
    with caplog.at_level(logging.INFO):
        data.setup("test")
    assert "data faces, test: 365 real, 663 synthetic; 0 human maps" in caplog.text
    assert [len(data.split_table(split)) for split in ("train", "val", "test")] == [1260, 280, 1028]
    assert data.train_generators == ["stargan", "stylegan2"]


def digests(data: FaceDataModule) -> list[int]:
    return np.concatenate([data._datasets[split].digests for split in SPLITS]).tolist()


def test_the_digests_are_the_same_however_and_wherever_images_are_kept(root: Path, tmp_path: Path) -> None:
    manifest = read_manifest(root / "manifest.csv")
    expected = [int(one) for split in SPLITS for one in file_digests(replace(manifest, table=manifest.split(split)))]
    assert 0 not in expected
    assert len(set(expected)) == 40
    other = Path(shutil.copytree(root, tmp_path.parent / "moved"))
    for place in (root, other):
        for options in CACHES:
            data = ready(place, cache_folder=str(tmp_path.parent / f"{place.name}-cache"), **options)
            paths, own = data.decoded()
            assert own.tolist() == expected[: len(paths)]
            batches = [batch for loader in data.predict_dataloader() for batch in loader]
            assert torch.cat([batch.digest for batch in batches]).tolist() == expected[22:]
    whole = ready(root).summary()["images_hash"]
    assert re.fullmatch("[0-9a-f]{16}", whole)
    grey(root / "maps" / "14" / "face.png", np.eye(16) * 200)  # that of image 2
    changed = ready(root)
    assert sum(one != before for one, before in zip(digests(changed), expected, strict=True)) == 1
    assert changed.summary()["images_hash"] != whole == ready(other).summary()["images_hash"]
    edit(other, lambda row: row.replace("train/0/", "train/00/"))
    (other / "train" / "0").rename(other / "train" / "00")
    assert ready(other).summary()["images_hash"] != whole


def test_what_was_not_decoded_has_no_digest(root: Path) -> None:
    """Headers alone are not read as a whole; a part of the human maps says nothing of the files."""
    data = ready(root, cache="none", check="headers")
    assert not data.decoded()[1].any()
    assert data.summary()["images_hash"] == ""
    assert ready(root, human_maps={"fraction": 0.5}).summary()["images_hash"] == ""
