"""The epoch that was scored beside the last one, in figures of the validation images."""

import pandas as pd

from saliency_entropy.page import wording
from saliency_entropy.page.table import Column, ShownTable, shown_table
from saliency_entropy.run.ranking import RANKINGS
from saliency_entropy.study.runs import Study
from saliency_entropy.study.tables import over_seeds

FIGURES = ("accuracy", "auroc", "auroc_margin", "cam_entropy")


def epoch_table(study: Study) -> pd.DataFrame:
    """Two rows per method, ``which`` scored (the epoch of the highest validation accuracy) and last: ``method, title,
    seeds``, and the ``_mean`` and ``_std`` over the seeds of ``epoch`` (from 1 on) and of :data:`FIGURES` of the
    validation images in it, from ``metrics.csv``; NaN where a run did not note the figure. Empty if no result names its
    best epoch."""
    rows = []
    for run in study.runs:
        best = run.result.get("best_epoch")
        if best is None or best >= len(run.epochs):
            continue
        for which, epoch in (("scored", best), ("last", len(run.epochs) - 1)):
            figures = {name: run.epochs[f"val/{name}"].iloc[epoch] for name in FIGURES if f"val/{name}" in run.epochs}
            row = {"method": run.method, "title": study.titles[run.method], "which": which, "epoch": epoch + 1}
            rows.append(row | figures)
    table = pd.DataFrame(rows, columns=["method", "title", "which", "epoch", *FIGURES])
    return over_seeds(table.astype(dict.fromkeys(FIGURES, float)), ["method", "title", "which"], ["epoch", *FIGURES])


def shown_epochs(study: Study) -> list[ShownTable]:
    """:func:`epoch_table` as readers see it, if it has a row."""
    table = epoch_table(study)
    if table.empty:
        return []
    about = (
        "Of the validation images, as noted after each epoch of training. Scored: the epoch of the highest accuracy, "
        "the last of equals, whose weights all other tables are of; on few images that is partly chance. Last: the "
        "last epoch, whose weights are not kept, so that there are no test figures of it. “–”: an earlier "
        "version did not note it."
    )
    columns = [
        Column("Method", "title", notes=[about]),
        Column("Epoch", lambda row: f"{row['which']}: {wording.spread(row['epoch_mean'], row['epoch_std'], 1)}"),
        Column("Seeds", "seeds"),
        Column("Accuracy", "accuracy", "spread"),
        Column(f"AUROC, {RANKINGS['logit']}", "auroc", "spread"),
        Column(f"AUROC, {RANKINGS['margin']}", "auroc_margin", "spread"),
        Column("CAM entropy / nats", "cam_entropy", "spread", 2),
    ]
    return [shown_table("epochs", "Scored and last epoch, validation images", table, columns)]
