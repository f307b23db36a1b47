"""The result of a search: its trials as a table, and the objective by trial and by searched values as a figure."""

import logging
import re
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from omegaconf import DictConfig
from optuna.trial import TrialState

from saliency_entropy.errors import UserError, writing
from saliency_entropy.page.wording import csv_text
from saliency_entropy.run.whole_files import write_atomically
from saliency_entropy.study.figures import COLOURS, STYLE, pdf, png
from saliency_entropy.sweep.search import read_search

log = logging.getLogger(__name__)
logging.getLogger("fontTools").setLevel(logging.WARNING)

OBJECTIVE = "val_auroc"
# A trial without an outcome is running, or waits for the next launch.
STATES = {TrialState.COMPLETE: "done", TrialState.FAIL: "diverged", TrialState.RUNNING: "unfinished"}
PANEL = 2.4  # inches
BEST = 5  # trials that are printed


def report(cfg: DictConfig) -> None:
    """Write ``trials.csv``, ``search.png`` and ``search.pdf`` of the search in ``cfg.study``, into ``cfg.output``.

    Raises:
        UserError: there is no search there, no trial has ended, or the output cannot be written.
    """
    study = Path(str(cfg.study))
    search = read_search(study)
    table = trials(search)
    if table[OBJECTIVE].notna().sum() == 0:
        raise UserError(f"no trial of the search in {study} has ended with an objective yet: wait for the first")
    output = study / "search" if cfg.output is None else Path(str(cfg.output))
    figure = trials_figure(table)
    with writing(f"output={output}", "give another folder with output="):
        write_atomically(output / "trials.csv", csv_text(table))
        write_atomically(output / "search.png", png(figure))
        write_atomically(output / "search.pdf", pdf(figure))
    counts = table["state"].value_counts()
    shown = ", ".join(f"{counts[state]} {state}" for state in STATES.values() if state in counts)
    log.info("%s: %d trials (%s)", study, len(table), shown)
    best = table.dropna(subset=OBJECTIVE).sort_values(OBJECTIVE, ascending=False, kind="stable").head(BEST)
    log.info("the best of them:\n%s", best.drop(columns="state").to_string(index=False))
    log.info("written: %s", output)


def trials(search: optuna.Study) -> pd.DataFrame:
    """One row per trial: ``trial`` (from 1 on), ``state``, ``val_auroc`` (NaN unless done), and its value of each key
    that is searched."""
    rows = [
        {"trial": trial.number + 1, "state": STATES[trial.state], OBJECTIVE: trial.value} | trial.params
        for trial in search.get_trials(deepcopy=False)
    ]
    return pd.DataFrame(rows, columns=None if rows else ["trial", "state", OBJECTIVE]).astype({OBJECTIVE: float})


@rc_context(STYLE)
def trials_figure(table: pd.DataFrame) -> Figure:
    """The objective by trial, with the best one so far, and against each searched value; the best trial is marked."""
    done = table.dropna(subset=OBJECTIVE)
    best = done.loc[done[OBJECTIVE].idxmax()]
    keys = [column for column in table if column not in ("trial", "state", OBJECTIVE)]
    figure = Figure(figsize=(PANEL * (1 + len(keys)), PANEL), layout="constrained")
    history, *panels = figure.subplots(1, 1 + len(keys), sharey=True, squeeze=False)[0]
    history.plot(done["trial"], np.maximum.accumulate(done[OBJECTIVE]), color=COLOURS[4], drawstyle="steps-post")
    history.set_ylabel("Validation AUROC")
    history.set_xlabel("Trial (line: the best so far)")
    history.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes, key in zip([history, *panels], ["trial", *keys], strict=True):
        axes.scatter(done[key], done[OBJECTIVE], s=18, color=COLOURS[0], zorder=3)
        axes.scatter(best[key], best[OBJECTIVE], s=60, color=COLOURS[5], marker="*", zorder=4)
    for axes, key in zip(panels, keys, strict=True):
        axes.set_xlabel(re.sub(r"^loss\.terms\.(.+)\.weight$", r"weight of \1", key))
    return figure
