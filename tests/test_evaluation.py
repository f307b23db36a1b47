"""The scores of a whole study: those of each run's own, decoded once, interrupted or not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from saliency_entropy.data import dataset
from saliency_entropy.errors import UserError
from saliency_entropy.evaluation import evaluate
from saliency_entropy.run_folder import register_resolvers

CONF = Path(__file__).parents[1] / "conf"


@pytest.fixture(scope="module")
def trained(train_small: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three runs, the last with the CAM of the true class; not to be changed."""
    study = tmp_path_factory.mktemp("trained") / "study"
    train_small(study / "cross_entropy" / "seed0", "method=cross_entropy", "trainer.max_epochs=1")
    train_small(study / "droid" / "seed0", "method=droid", "trainer.max_epochs=1")
    train_small(
        study / "droid" / "seed1", "method=droid", "seed=1", "trainer.max_epochs=1", "protocol.class_index=true"
    )
    return study


@pytest.fixture
def study(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "study"))


def configured(study: Path, *overrides: str) -> DictConfig:
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(
            "evaluate",
            [f"study={study}", "batch_size=8", "chunk=1", "num_workers=0", "device=cpu", "threads=1", *overrides],
        )


def score_files(study: Path, name: str) -> dict[str, pd.DataFrame]:
    return {str(path.relative_to(study)): pd.read_parquet(path) for path in sorted(study.rglob(f"{name}.parquet"))}


def test_the_scores_are_those_that_each_run_gave_itself(study: Path, trained: Path) -> None:
    for path in study.rglob("test.parquet"):
        path.unlink()
    evaluate(configured(study))
    own, again = score_files(trained, "test"), score_files(study, "test")
    assert len(own) == 3
    assert own.keys() == again.keys()
    for name, table in own.items():
        pd.testing.assert_frame_equal(again[name], table, check_exact=True)
    assert not [path for path in study.rglob(".*") if path.is_dir()]


def test_each_image_is_decoded_once(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    load = dataset.load_image
    monkeypatch.setattr(dataset, "load_image", lambda file, *rest: decoded.append(str(file)) or load(file, *rest))
    evaluate(configured(study, "overwrite=true"))
    assert len(decoded) == len(set(decoded)) == 12


def test_what_is_scored_is_left(study: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(dataset, "load_image", None)  # nothing may be decoded
    evaluate(configured(study))
    assert "0 runs scored, 3 were scored before" in caplog.text


def test_an_interrupted_pass_goes_on(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in its second chunk: the first is not decoded again, and the files are the same to the last bit."""
    load = dataset.load_image
    decoded: list[str] = []

    def killed(file: object, *rest: object) -> np.ndarray:
        decoded.append(str(file))
        if len(decoded) == 10:
            raise KeyboardInterrupt
        return load(file, *rest)

    monkeypatch.setattr(dataset, "load_image", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(configured(study, "set=again", "split=test"))
    assert not score_files(study, "again")
    first = decoded[:8]
    decoded[:] = [""] * 20  # beyond the tenth
    evaluate(configured(study, "set=again"))
    assert not {*first} & {*decoded}
    for name, table in score_files(study, "again").items():
        expected = pd.read_parquet(study / name.replace("again", "test"))
        pd.testing.assert_frame_equal(table, expected, check_exact=True)
    assert len(score_files(study, "again")) == 3


def other_images(root: Path) -> Path:
    (root / "x").mkdir(parents=True)
    for number in range(3):
        Image.fromarray(np.full((30, 40, 3), 60 * number, dtype=np.uint8)).save(root / "x" / f"{number}.png")
    rows = "".join(
        f"x/{n}.png,{label},test,{g},{n}\n"
        for n, label, g in ((0, "real", ""), (1, "synthetic", "n"), (2, "synthetic", "m"))
    )
    (root / "manifest.csv").write_text("path,label,split,generator,mine\n" + rows)
    return root


def test_other_images_without_training(study: Path, tmp_path: Path) -> None:
    """A test set alone, with a column of its own; a changed image is not taken for scored."""
    root = other_images(tmp_path / "other")
    data = ("data=faces", f"data.root={root}", "set=other")
    evaluate(configured(study, *data))
    tables = score_files(study, "other")
    assert len(tables) == 3
    for table in tables.values():
        assert table["mine"].tolist() == ["0", "1", "2"]
        assert np.isfinite(table["logit_real"]).all()
        assert table["cam_human_mse"].isna().all()
    evaluate(configured(study, *data))
    (root / "manifest.csv").write_text((root / "manifest.csv").read_text().replace(",m,", ",k,"))
    with pytest.raises(
        UserError, match=r"other\.parquet holds scores of other images, .*; give another name, set=\.\.\., or"
    ):
        evaluate(configured(study, *data))
    evaluate(configured(study, *data, "overwrite=true"))
    assert {table["generator"][2] for table in score_files(study, "other").values()} == {"k"}


def test_a_configuration_chooses_no_function(study: Path, tmp_path: Path) -> None:
    path = study / "cross_entropy" / "seed0" / "config.yaml"
    config = OmegaConf.load(path)
    config.data.source = {"_target_": "os.system", "command": f"touch {tmp_path}/evil"}
    OmegaConf.save(config, path)
    with pytest.raises(UserError, match=r"config\.yaml names no reader of this package; give data="):
        evaluate(configured(study, "overwrite=true"))
    config.data.source = {
        "_target_": "saliency_entropy.data.manifest.read_manifest",
        "path": {"_target_": "os.system", "command": f"touch {tmp_path}/evil"},
    }
    OmegaConf.save(config, path)
    with pytest.raises(UserError, match=r"config\.yaml names no reader of this package"):
        evaluate(configured(study, "overwrite=true"))
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(("override", "message"), [
    ("batch_size=0", "batch_size is 0; give a whole number from 1 on"),
    ("chunk=half", "chunk is 'half'; give a whole number from 1 on"),
    ("split=valid", "split is 'valid'; choose of train, val, test"),
    ("set=../evil", "set='../evil' cannot name a folder: use letters, digits"),
])  # fmt: skip
def test_mistakes(study: Path, override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        evaluate(configured(study, override))
    assert str(caught.value).startswith(message)


def test_a_study_without_finished_runs(study: Path) -> None:
    for path in study.rglob("result.json"):
        path.unlink()
    with pytest.raises(UserError, match=r"no run in .* is finished"):
        evaluate(configured(study))
