"""Where a study keeps its runs. Light to import: listing a study does not wait for pandas."""

import re
from pathlib import Path

from saliency_entropy.errors import UserError
from saliency_entropy.run.console import typed

# In the paper's order; other methods of a study come after these.
METHODS = ("cross_entropy", "cyborg", "hseb", "fmmmse", "droid", "droid_cyborg")

SEARCH_JOURNAL = "search.journal"  # in the folder of a search, where each trial has a study of its own


def run_folders(study: Path) -> list[Path]:
    """The folders ``<study>/<method>/seed<seed>``, sorted; raises UserError if there are none."""
    if not study.is_dir():
        known = Path("runs", study)  # where a study's name alone would have put it
        example = known if known.is_dir() else "runs/demo"
        raise UserError(f"study={study} is not a folder; give the folder of a study, such as study={example}")
    found = seed_folders(study)
    if found:
        return found
    if (study / "config.yaml").exists():
        raise UserError(f"study={study} is a single run; give the folder of its study, study={study.parent.parent}")
    if any(re.fullmatch(r"seed\d+", child.name) for child in visible_folders(study)):
        raise UserError(f"study={study} is one method of a study; give the folder of the study, study={study.parent}")
    parts = [child for child in visible_folders(study) if seed_folders(child)]
    if parts:
        raise UserError(
            f"study={study} holds no runs but further studies: give one of them, "
            + " or ".join(f"study={part}" for part in parts[:5])
        )
    raise UserError(f"study={study} holds no runs; train some first: {typed('train')} study={study.name} method=...")


def seed_folders(study: Path) -> list[Path]:
    return [
        run
        for method in visible_folders(study)
        for run in visible_folders(method)
        if re.fullmatch(r"seed\d+", run.name)
    ]


def trial_folders(study: Path) -> list[Path]:
    """The studies of a search's trials that have begun; empty if the study is not a search."""
    if not (study / SEARCH_JOURNAL).exists():
        return []
    return [child for child in visible_folders(study) if seed_folders(child)]


def visible_folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def method_order(method: str) -> tuple[int, str]:
    return (METHODS.index(method), "") if method in METHODS else (len(METHODS), method)
