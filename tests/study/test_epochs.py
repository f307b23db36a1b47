"""The scored epoch beside the last one, against the runs' own tables."""

import numpy as np
import pandas as pd
import pytest
from benchmarks.made_up_study import write_run

from saliency_entropy.study.epochs import epoch_table, shown_epochs
from saliency_entropy.study.runs import read_study

BEST = (1, 3, 2)


def written(folder):
    random = np.random.default_rng(0)
    for seed, best in enumerate(BEST):
        path = write_run(folder, "droid", seed, result={"best_epoch": best}) / "metrics.csv"
        figures = {f"val/{name}": random.uniform(size=4) for name in ("accuracy", "auroc", "auroc_margin")}
        pd.read_csv(path).assign(**figures).to_csv(path, index=False)
    return read_study(folder)


def test_both_epochs_are_those_of_the_runs(tmp_path):
    study = written(tmp_path)
    table = epoch_table(study).set_index("which")
    epochs = [pd.read_csv(tmp_path / "droid" / f"seed{seed}" / "metrics.csv") for seed in range(3)]
    for which, rows in (("scored", BEST), ("last", (3, 3, 3))):
        assert table.loc[which, "epoch_mean"] == np.mean(rows) + 1
        for name in ("accuracy", "auroc", "auroc_margin", "cam_entropy"):
            own = [run[f"val/{name}"][row] for run, row in zip(epochs, rows, strict=True)]
            assert table.loc[which, f"{name}_mean"] == pytest.approx(np.mean(own))
            assert table.loc[which, f"{name}_std"] == pytest.approx(np.std(own, ddof=1))
    (shown,) = shown_epochs(study)
    assert list(shown.cells["Epoch"]) == ["scored: 3.0 ± 1.0", "last: 4.0 ± 0.0"]
    assert shown.cells.loc[1, "AUROC, margin"].startswith(f"{table.loc['last', 'auroc_margin_mean']:.3f} ±")
    assert "there are no test figures of it" in shown.notes[0]


def test_what_an_earlier_version_did_not_note_is_a_dash(tmp_path):
    study = written(tmp_path)
    path = tmp_path / "droid" / "seed1" / "metrics.csv"
    pd.read_csv(path).drop(columns="val/auroc_margin").to_csv(path, index=False)
    (shown,) = shown_epochs(read_study(tmp_path))
    assert list(shown.cells["AUROC, margin"]) == ["–", "–"]
    assert "±" in shown.cells.loc[0, "AUROC, logit 1"]
    write_run(tmp_path / "older", "droid", 0)
    assert shown_epochs(read_study(tmp_path / "older")) == []
    assert len(study.runs) == 3
