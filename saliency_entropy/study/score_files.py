"""Score files that ``experiments/evaluate.py`` adds to the runs of a study: which of them can be compared."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from saliency_entropy.errors import in_one_line
from saliency_entropy.page import wording
from saliency_entropy.run.console import typed
from saliency_entropy.study.run_figures import is_of_this_checkpoint
from saliency_entropy.study.run_files import images_of, usual
from saliency_entropy.study.runs import Run, Study


def comparable_figures(
    study: Study,
    name: str,
    read: Callable[[Path], pd.DataFrame],
    alike: list[str],
    what: str = "images",
    of_set: str = "",
    options: str = "",
) -> tuple[dict[Run, pd.DataFrame], list[str]]:
    """The figures of the runs whose ``scores/<name>.parquet`` are of the same images.

    A run that lacks the file or was trained again since, or whose file is damaged or of other images than most runs'
    files, is left out.

    Args:
        study: its runs.
        name: of the files.
        read: a run's file -> its figures.
        alike: columns of the figures that are equal for runs that were scored on the same images.
        what: what differs where these columns do, in a sentence.
        of_set: " of set ...", in a sentence.
        options: of experiments/evaluate.py, with which it writes such files.

    Returns:
        Run -> its figures, with its ``method`` and ``title``; and sentences on the runs that are left out.
    """
    found: dict[Run, pd.DataFrame] = {}
    missing, earlier, damaged = [], [], []
    for run in study.runs:
        path = run.folder / "scores" / f"{name}.parquet"
        try:
            if not path.exists():
                missing.append(run.name)
            elif not is_of_this_checkpoint(run, path):
                earlier.append(run.name)
            else:
                found[run] = read(path).assign(method=run.method, title=study.titles[run.method])
        # A file of something else makes the readers raise almost anything.
        except Exception as error:
            # Without the study's folder, which the page need not know.
            damaged.append(f"{run.name} ({in_one_line(error).replace(f'{study.folder}/', '')})")
    images = {run: figures[alike].to_csv(index=False) for run, figures in found.items()}
    most = Counter(images.values()).most_common(1)[0][0] if images else ""
    kept = {run: figures for run, figures in found.items() if images[run] == most}
    digests = {run: images_of(run.folder / "scores" / f"{name}.parquet") for run in kept}
    kept = {run: figures for run, figures in kept.items() if digests[run] in usual(digests.values())}
    others = [run.name for run in found if run not in kept]
    first = next((run.name for run in kept), "")
    again = " and ".join(filter(None, (options, "overwrite=true")))
    reasons = (
        (missing, f"they have no scores/{name}.parquet", options, "scores them"),
        (earlier, "they were trained again after these scores were made", again, "scores them"),
        (damaged, f"their scores/{name}.parquet cannot be used", again, "makes them again"),
        (others, f"they were scored on other {what} than {first}", again, "makes them alike"),
    )
    return kept, [
        f"Left out{of_set}, since {why}: {wording.first_few(runs)}; {typed('evaluate')}"
        f"{f' with {given}' if given else ''} {remedy}."
        for runs, why, given, remedy in reasons
        if runs
    ]


def not_finite(found: dict[Run, pd.DataFrame], of_set: str = "") -> list[str]:
    """A sentence on the runs whose figures count scores that are ``not_finite``, if there are any."""
    runs = [run.name for run, figures in found.items() if figures["not_finite"].any()]
    return [f"“–”{of_set} where scores are not finite, those of {wording.first_few(runs)}."] if runs else []
