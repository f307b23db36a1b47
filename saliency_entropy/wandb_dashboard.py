"""A W&B workspace that compares the methods of a project, as code."""

import logging

import wandb
from omegaconf import DictConfig

from saliency_entropy.errors import UserError, in_one_line
from saliency_entropy.wandb_logging import generator_key

try:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces import expr
except ImportError:
    raise UserError("the dashboard needs the package wandb-workspaces: pip install 'saliency-entropy[wandb]'") from None

log = logging.getLogger(__name__)


def save_dashboard(cfg: DictConfig) -> None:
    """Save the workspace of ``conf/dashboard.yaml`` at W&B.

    Raises:
        UserError: there is no W&B key, or W&B does not take the workspace.
    """
    if not wandb.login(prompt=False, verify=False):
        raise UserError("a dashboard is saved at W&B, for which there is no key: wandb login, or set WANDB_API_KEY")
    dashboard = workspace(cfg.project, cfg.entity, cfg.study, list(cfg.generators))
    try:
        dashboard.save()
    except Exception as error:
        raise UserError(
            f"W&B has not taken the dashboard of {cfg.entity}/{cfg.project}: {in_one_line(error)}"
        ) from error
    log.info("dashboard: %s", dashboard.url)


def workspace(project: str, entity: str, study: str | None, generators: list[str]) -> ws.Workspace:
    """The workspace: one line or bar a method, which is the mean over its seeds.

    Args:
        project: W&B project.
        entity: W&B user or team.
        study: the study whose runs are shown; None for all.
        generators: those that get a bar plot of their own, by the name that the manifest gives.
    """
    by_method = {"groupby": "method.name", "groupby_aggfunc": "mean"}
    spread = {"x": "epoch", "groupby_rangefunc": "stddev", "max_runs_to_show": 100, **by_method}
    measures = {"AUROC": "best/test_auroc", "AUROC on unseen generators": "best/test_auroc_unseen"}
    comparison = [
        wr.LinePlot(title="CAM entropy of the training images / nats", y=["train/cam_entropy"], **spread),
        wr.LinePlot(title="validation AUROC", y=["val/auroc"], **spread),
        *(wr.BarPlot(title=title, metrics=[key], **by_method) for title, key in measures.items()),
        *(
            wr.ScatterPlot(
                title=f"{title} against CAM entropy",
                x=wr.SummaryMetric("best/test_cam_entropy"),
                y=wr.SummaryMetric(key),
            )
            for title, key in measures.items()
        ),
    ]
    bars = [wr.BarPlot(title=name, metrics=[generator_key(name)], **by_method) for name in generators]
    cams = wr.MediaBrowser(title="CAMs of the same validation images", media_keys=["val/cam"], num_columns=8)
    return ws.Workspace(
        name="methods" if study is None else f"methods of {study}",
        entity=entity,
        project=project,
        sections=[
            ws.Section(name="Methods", panels=comparison, is_open=True),
            *([ws.Section(name="AUROC by generator", panels=bars, is_open=True)] if bars else []),
            ws.Section(name="Where the detectors look", panels=[cams], is_open=True),
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=100),
        runset_settings=ws.RunsetSettings(
            filters=[] if study is None else [expr.Config("study") == study],
            groupby=[expr.Config("method.name")],
            pinned_columns=[f"summary:{key}" for key in measures.values()],
        ),
    )
