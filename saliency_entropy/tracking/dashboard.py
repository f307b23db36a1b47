"""A W&B workspace that compares the methods of a project, as code."""

import logging
from pathlib import Path

import pandas as pd
import wandb
from omegaconf import DictConfig

from saliency_entropy.errors import UserError, in_one_line
from saliency_entropy.run.ranking import RANKINGS, SUFFIXES
from saliency_entropy.run.variants import variant_folders
from saliency_entropy.tracking.wandb_run import ROC_KEYS, generator_key, generator_list

try:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces import expr
    from wandb_workspaces.reports.v2 import internal
except ImportError:
    raise UserError("the dashboard needs the package wandb-workspaces: pip install 'saliency-entropy[wandb]'") from None

log = logging.getLogger(__name__)

MAX_RUNS = 100


def save_dashboard(cfg: DictConfig) -> None:
    """Save the workspace of ``conf/dashboard.yaml`` at W&B.

    Raises:
        UserError: no W&B key is set, the study has variants, or W&B does not take the workspace.
    """
    variants = [] if cfg.study is None else variant_folders(Path(cfg.runs_dir, cfg.study))
    if variants:
        raise UserError(
            f"study={cfg.study} has variants, whose runs are not averaged: give one of them, "
            + " or ".join(f"study={cfg.study}/{folder.name}" for folder in variants[:5])
        )
    if not wandb.login(prompt=False, verify=False):
        raise UserError("a dashboard is saved at W&B, for which there is no key: wandb login, or set WANDB_API_KEY")
    generators = cfg.generators
    if generators is None:
        generators = scored_generators(Path(cfg.runs_dir), cfg.study) if cfg.study is not None else []
    dashboard = workspace(cfg.project, cfg.entity, cfg.study, list(generators), cfg.train_generators)
    try:
        dashboard.save()
    except Exception as error:
        raise UserError(
            f"W&B has not taken the dashboard of {cfg.entity}/{cfg.project}: {in_one_line(error)}"
        ) from error
    log.info("dashboard: %s", dashboard.url)


class BoxPlot(wr.BarPlot):
    """A box for each group of runs. W&B's bar chart can draw it; wandb-workspaces has no argument for that."""

    def _to_model(self) -> internal.UnknownPanel:
        panel = super()._to_model().model_dump(by_alias=True, exclude_none=True)
        panel["config"]["plotStyle"] = "boxplot"
        return internal.UnknownPanel.model_validate(panel)


def scored_generators(runs_dir: Path, study: str) -> list[str]:
    """The generators of the test images that a study's runs have scored, in alphabetical order."""
    for scores in runs_dir.glob(f"{study}/*/*/scores/test.parquet"):
        generators = pd.read_parquet(scores, columns=["generator"])["generator"]
        return sorted(set(generators) - {""})
    return []


def workspace(
    project: str, entity: str, study: str | None, generators: list[str], train_generators: list[str] | None = None
) -> ws.Workspace:
    """The workspace, with a line for each method (the mean over its seeds), a box for each method, and a dot for each
    run.

    Args:
        project: W&B project.
        entity: W&B user or team.
        study: the study whose runs are shown; None for all studies.
        generators: the generators whose AUROC gets a box plot and a column of its own, by their names in the manifest.
        train_generators: show only runs that were trained on exactly these generators; None for all runs.
    """
    lines = {
        "groupby": "method.name", "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev",
        "max_runs_to_show": MAX_RUNS,
    }  # fmt: skip
    boxes = {"groupby": "method.name", "max_runs_to_show": MAX_RUNS}
    measures = {
        f"{title} by {RANKINGS[score]}": f"best/test_{name}{suffix}"
        for title, name in (("AUROC", "auroc"), ("AUROC on unseen generators", "auroc_unseen"))
        for score, suffix in SUFFIXES.items()
    }
    comparison = [
        wr.LinePlot(title="CAM entropy of the training images / nats", x="epoch", y=["train/cam_entropy"], **lines),
        *(
            wr.LinePlot(title=f"validation AUROC by {RANKINGS[score]}", x="epoch", y=[f"val/auroc{suffix}"], **lines)
            for score, suffix in SUFFIXES.items()
        ),
        *(BoxPlot(title=title, metrics=[key], **boxes) for title, key in measures.items()),
        *(
            wr.ScatterPlot(
                title=f"{title} against CAM entropy",
                x=wr.SummaryMetric("best/test_cam_entropy"),
                y=wr.SummaryMetric(key),
            )
            for title, key in measures.items()
        ),
        *(
            wr.LinePlot(title=f"ROC of the test images by {by}", x=ROC_KEYS[0], y=[key], **lines)
            for by, key in zip(RANKINGS.values(), ROC_KEYS[1:], strict=True)
        ),
    ]
    keys = {
        f"{name} by {RANKINGS[s]}": generator_key(name, f"auroc{end}")
        for name in generators
        for s, end in SUFFIXES.items()
    }
    generator_boxes = [BoxPlot(title=title, metrics=[key], **boxes) for title, key in keys.items()]
    filters = [] if study is None else [expr.Config("study") == study]
    if train_generators is not None:
        filters.append(expr.Summary("train_generators") == generator_list(train_generators))
    cams = wr.MediaBrowser(title="CAMs of the same validation images", media_keys=["val/cam"], num_columns=8)
    return ws.Workspace(
        name="methods" if study is None else f"methods of {study}",
        entity=entity,
        project=project,
        sections=[
            ws.Section(name="Methods", panels=comparison, is_open=True),
            *([ws.Section(name="AUROC by generator", panels=generator_boxes, is_open=True)] if generators else []),
            ws.Section(name="Where the detectors look", panels=[cams], is_open=True),
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=MAX_RUNS),
        runset_settings=ws.RunsetSettings(
            filters=filters,
            groupby=[expr.Config("method.name")],
            # Runs can be sorted and filtered by these columns there.
            pinned_columns=[f"summary:{key}" for key in (*measures.values(), *keys.values())],
        ),
    )
