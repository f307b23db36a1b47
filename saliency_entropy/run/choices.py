"""The groups of ``conf/`` of which a run has one option each."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from saliency_entropy.errors import UserError

GROUPS = ("method", "backbone", "data", "protocol", "trainer", "logger", "experiment", "debug")


def refuse_mixtures(hydra: Mapping[str, Any]) -> None:
    """Refuse a list of options for one group, whose files Hydra would merge under the name of the last one.

    Args:
        hydra: Hydra's part of a composed configuration; a group with a list is missing from its choices.

    Raises:
        UserError: names the group and what was given.
    """
    for group in GROUPS:
        if group in hydra["runtime"]["choices"]:
            continue
        given = [text for text in hydra["overrides"]["task"] if re.match(rf"[+~]*{group}(=|$)", text)]
        options = ",".join(re.findall(r"[\w-]+", given[-1].partition("=")[2])) if given else ""
        if group in ("experiment", "debug") and given and "," not in options:
            continue  # none (~debug) or a list of one: these name no run
        remedy = "one command for each"
        if "," in options and group not in ("experiment", "debug"):
            remedy = f"-m {group}={options} for a run with each"
        raise UserError(
            f"{given[-1] if given else f'a list of options for {group}'} is not one option of conf/{group}, and two "
            f"would be mixed into one run: give {group}= one option, or {remedy}"
        )


def refuse_null(arguments: Sequence[str]) -> None:
    """End the command with a sentence if it gives a group no option (``logger=null``), at which Hydra fails before it
    calls anything of this package."""
    for argument in arguments:
        group, _, options = argument.lstrip("+").partition("=")
        if group in GROUPS and "null" in options.lower().split(","):
            raise SystemExit(f"{argument} names no option of conf/{group}: give one, or leave it out")
