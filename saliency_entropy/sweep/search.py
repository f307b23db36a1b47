"""A search for the values of a configuration with the best objective, by Optuna: its trials, in the study's folder."""

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from saliency_entropy.errors import UserError
from saliency_entropy.run.folder import in_words
from saliency_entropy.run.study_folders import SEARCH_JOURNAL

optuna.logging.set_verbosity(optuna.logging.WARNING)

NAME = "search"  # Optuna's name for the one study in the journal
DIGITS = 3  # significant digits of a value, which is in the name of a folder, too
TRIES = 100  # until the intervals are assumed to hold no further values


class Interval(NamedTuple):
    """The interval in which a value is searched, its ends included; ``log``: evenly in the logarithm."""

    low: float
    high: float
    log: bool = False

    def holds(self, value: Any) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def rounded(self, value: float) -> float:
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def distribution(self) -> FloatDistribution:
        return FloatDistribution(self.low, self.high, log=self.log)


class Search:
    """The trials of a search. One process at a time may hold it, see :mod:`~saliency_entropy.run.lock`.

    A trial is chosen from its number, the seed and the ended trials alone. One line of the journal is written before it
    is run, and one when it has ended: a search that is killed goes on as if it had not been.

    Args:
        folder: the study's.
        intervals: key -> the interval that is searched.
        settings: what must be the same whenever the search goes on, as plain values.
        seed: of the choice.
        n_random: number of trials until TPE begins to go by the earlier ones.
        parallel: number of trials that are chosen without knowing each other's objective.

    Raises:
        UserError: the folder holds a search of other settings, or its journal is damaged.
    """

    def __init__(
        self,
        folder: Path,
        intervals: Mapping[str, Interval],
        settings: Mapping[str, Any],
        seed: int,
        n_random: int,
        parallel: int,
    ) -> None:
        journal = folder / SEARCH_JOURNAL
        _drop_torn_line(journal)
        # The lock of a process that is gone, for which Optuna would wait half a minute.
        journal.with_name(f"{SEARCH_JOURNAL}.lock").unlink(missing_ok=True)
        storage = _storage(journal)
        begun = storage.get_all_studies()  # none in a journal whose first line was torn
        open_study = optuna.load_study if begun else partial(optuna.create_study, direction="maximize")
        self.study = open_study(study_name=NAME, storage=storage)
        self.intervals = intervals
        self.seed, self.n_random, self.parallel = seed, n_random, parallel
        self._check_settings(folder, dict(settings))

    def _check_settings(self, folder: Path, settings: dict[str, Any]) -> None:
        kept = self.study.user_attrs.get("settings")
        if kept is None:
            self.study.set_user_attr("settings", settings)
            return
        ours = json.loads(json.dumps(settings))
        keys = sorted(key for key in kept.keys() | ours.keys() if kept.get(key) != ours.get(key))
        if keys:
            shown = in_words({key: (kept.get(key), ours.get(key)) for key in keys})
            raise UserError(
                f"{folder} holds a search of another configuration ({shown}), whose trials cannot be compared "
                "with these: give this one a study= of its own, or delete that folder"
            )

    @property
    def count(self) -> int:
        """Number of trials so far."""
        return len(self.study.get_trials(deepcopy=False))

    def open_trials(self) -> dict[int, dict[str, float]]:
        """Number -> values, of the trials without an outcome."""
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return {trial.number: trial.params for trial in trials}

    def add(self, configured: Mapping[str, Any]) -> None:
        """Choose the next trial.

        Args:
            configured: the values that the first trial gets, if they are numbers within the intervals.

        Raises:
            UserError: the trials have all values within the intervals.
        """
        number = self.count
        known = [trial.params for trial in self.study.get_trials(deepcopy=False)]
        first = number == 0 and all(interval.holds(configured[key]) for key, interval in self.intervals.items())
        values = {key: float(value) for key, value in configured.items()} if first else self._sampled(number, known)
        self.study.add_trial(create_trial(state=TrialState.RUNNING, params=values, distributions=self._distributions()))

    def _sampled(self, number: int, known: list[dict[str, float]]) -> dict[str, float]:
        for attempt in range(TRIES):
            # A seed for each choice, since the state of a sampler would be lost with its process.
            seed = int(np.random.SeedSequence([self.seed, number, attempt]).generate_state(1)[0])
            # At random where TPE finds nothing new.
            n_random = self.n_random if attempt < TRIES // 2 else number + 1
            sampler = TPESampler(
                seed=seed, n_startup_trials=n_random, multivariate=True, constant_liar=self.parallel > 1
            )
            # In memory, so that the trial is written into the journal as a whole.
            rehearsal = optuna.create_study(sampler=sampler, direction="maximize")
            rehearsal.add_trials(self.study.get_trials(deepcopy=False))
            sampled = rehearsal.ask(self._distributions()).params
            values = {key: interval.rounded(sampled[key]) for key, interval in self.intervals.items()}
            if values not in known:
                return values
        raise UserError(
            f"the search has tried what there is within {', '.join(self.intervals)} after {number} trials: give a "
            "smaller hydra.sweeper.n_trials, or wider intervals under another study="
        )

    def _distributions(self) -> dict[str, BaseDistribution]:
        return {key: interval.distribution() for key, interval in self.intervals.items()}

    def end(self, number: int, objective: float) -> None:
        """Keep the objective of a trial; one that is not finite (a diverged run) counts as failed, and is not tried
        again."""
        if math.isfinite(objective):
            self.study.tell(number, objective)
        else:
            self.study.tell(number, state=TrialState.FAIL)


def read_search(folder: Path) -> optuna.Study:
    """The search in a study's folder, to be read only; it may be going on.

    Raises:
        UserError: the folder holds no search, or a damaged one.
    """
    journal = folder / SEARCH_JOURNAL
    storage = _storage(journal) if journal.is_file() else None
    if storage is None or not storage.get_all_studies():
        raise UserError(f"{folder} holds no search: set study to the folder of one, such as runs/weights")
    return optuna.load_study(study_name=NAME, storage=storage)


def _storage(journal: Path) -> JournalStorage:
    try:
        return JournalStorage(JournalFileBackend(str(journal)))
    except (ValueError, KeyError, TypeError) as error:  # Optuna's answers to lines that are not its own
        raise UserError(
            f"{journal} is damaged ({error}): restore it, or delete it to search anew; the runs are kept"
        ) from error


def _drop_torn_line(journal: Path) -> None:
    """Drop what a power cut left of the last line, since the next line would be appended to it."""
    if journal.exists():
        content = journal.read_bytes()
        if not content.endswith(b"\n"):
            with journal.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)
