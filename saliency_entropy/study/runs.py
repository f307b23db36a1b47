"""What a study left on disk: its finished runs, and the folders that cannot be averaged."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from yaml import YAMLError

from saliency_entropy.data.table import OPTIONAL, REQUIRED, SPLITS
from saliency_entropy.errors import UserError
from saliency_entropy.metrics import SCORES
from saliency_entropy.page import wording
from saliency_entropy.run import folder as run_config
from saliency_entropy.run.console import typed
from saliency_entropy.run.folder import epochs_done, finished_result, flatten, plain_yaml, scientific_config
from saliency_entropy.run.study_folders import METHODS, method_order, run_folders, seed_folders, visible_folders
from saliency_entropy.run.trainer_options import images_left_out
from saliency_entropy.study.run_files import (
    OPTIONAL_SCORE_COLUMNS,
    SCORE_COLUMNS,
    VAL_SCORE_COLUMNS,
    check_result,
    checked_config,
    checked_epochs,
    images_of,
    read_scores,
    reading,
    usual,
)
from saliency_entropy.sweep.swept import swept_runs

BASELINE = "cross_entropy"
# The keys in which two runs of a study may differ: those of the method, and the seeds.
METHOD_KEYS = ("method", "loss")
VARIED = (*METHOD_KEYS, "seed", "data.seed", "data.human_maps.seed")


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    Attributes:
        folder: ``<study>/<method>/seed<seed>``.
        result: its ``result.json``.
        config: its ``config.yaml``.
    """

    folder: Path
    result: dict[str, Any]
    config: dict[str, Any]

    @property
    def method(self) -> str:
        return self.result["method"]

    @property
    def seed(self) -> int:
        return self.result["seed"]

    @property
    def name(self) -> str:
        return f"{self.method}/seed{self.seed}"

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """``metrics.csv``, one row per epoch. Raises UserError if it cannot be read."""
        return checked_epochs(self.folder, self.result.get("epochs"))

    def setting(self, key: str, missing: Any = None) -> Any:
        """The value of a key of the configuration, such as ``data.name``; ``missing`` where there is no such key."""
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part, missing) if isinstance(value, dict) else missing
        return value

    def test_scores(self, columns: Sequence[str] = SCORE_COLUMNS, optional: Sequence[str] = ()) -> pd.DataFrame:
        """``scores/test.parquet``: one row per image. Read anew at each call: the 60 runs of the paper's study would
        not fit into memory together.

        Args:
            columns: required ones; ``source`` and ``compare_with`` are read too, where the file has them.
            optional: further columns that are read where the file has them.

        Raises:
            UserError: the file cannot be read or lacks a column.
        """
        with self._reading_scores("test") as path:
            return read_scores(path, columns, [*OPTIONAL_SCORE_COLUMNS, *optional])

    def val_scores(self) -> pd.DataFrame | None:
        """``scores/val.parquet``: ``label, logit_real, logit_synthetic`` of each image; None if there is no such file.

        Raises:
            UserError: the file cannot be read or lacks a column.
        """
        with self._reading_scores("val") as path:
            return read_scores(path, VAL_SCORE_COLUMNS) if path.exists() else None

    def manifest_columns(self) -> list[str]:
        """The columns of ``scores/test.parquet`` that come from the manifest, without the label, the split, the
        generator and the names of files.

        Raises:
            UserError: the file cannot be read.
        """
        known = {*REQUIRED, *OPTIONAL, *SCORES, "compare_with"} - {"source"}
        with self._reading_scores("test") as path:
            schema = pq.read_schema(path)
            return [field.name for field in schema if field.name not in known and not pa.types.is_nested(field.type)]

    def has_checkpoint(self, digest: str) -> bool:
        """Whether the run was scored with the weights of this digest; also True for a result of an earlier version of
        this package, which does not name its weights."""
        return self.result.get("checkpoint", digest) == digest

    @contextmanager
    def _reading_scores(self, split: str) -> Iterator[Path]:
        path = self.folder / "scores" / f"{split}.parquet"
        with reading(path, f"delete {self.folder / 'result.json'} and train again, which then only scores the run"):
            yield path


@dataclass(frozen=True)
class LeftOut:
    """A run folder that is not averaged, and why."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Study:
    """The runs of a study, all scored on the same test images.

    Attributes:
        folder: ``runs/demo``, for example.
        runs: the finished runs, by method in the paper's order, then by seed.
        left_out: the other run folders.
        warnings: sentences on what makes the runs less comparable than they should be.
    """

    folder: Path
    runs: list[Run]
    left_out: list[LeftOut]
    warnings: list[str]

    @cached_property
    def methods(self) -> list[str]:
        """The names of the methods that have a finished run, in order."""
        return list(dict.fromkeys(run.method for run in self.runs))

    @cached_property
    def titles(self) -> dict[str, str]:
        """Method -> its name in tables and figures; methods that share a title have their names added to it."""
        titles = {run.method: str(run.result["title"]) for run in reversed(self.runs)}
        counts = Counter(titles.values())
        return {
            method: titles[method] if counts[titles[method]] == 1 else f"{titles[method]} ({method})"
            for method in self.methods
        }

    @property
    def train_generators(self) -> list[str]:
        return self.runs[0].result["train_generators"]

    @property
    def relatives(self) -> list[str]:
        """The generators of the families of those in training."""
        return self.runs[0].result.get("relatives", [])

    def of_method(self, method: str) -> list[Run]:
        return [run for run in self.runs if run.method == method]


def read_study(folder: Path) -> Study:
    """Read ``<folder>/<method>/seed<seed>/`` of every run.

    A run that cannot be averaged with the others is left out, with the reason: it is unfinished, damaged, a copy of
    another or renamed, diverged, was scored on other test images or trained with other generators than most. So are a
    run's folder that was given another name, such as ``seed0-copy``, and a run of the last sweep that was never begun.
    A run that diverged after the epoch that it was scored with stays, with a warning.

    Raises:
        UserError: no run is left; or as many runs were scored on other test images, or trained with other generators.
    """
    folders = run_folders(folder)
    runs: list[_ScoredRun] = []
    left_out: list[LeftOut] = []
    unusable: list[str] = []
    images = TestImages()
    for run_folder in folders:
        name = f"{run_folder.parent.name}/{run_folder.name}"
        try:
            result = finished_result(run_folder)
            if result is None:
                left_out.append(LeftOut(name, _progress(run_folder)))
            else:
                runs.append(_scored(_read_run(run_folder, result), images))
        except UserError as error:
            unusable.append(str(error))
            # Without the study's folder, which the page need not know.
            left_out.append(LeftOut(name, str(error).replace(f"{folder}/", "")))
    left_out += [LeftOut(name, "not the name of a run’s folder, seed<number>") for name in _other_names(folder)]
    left_out += [LeftOut(name, "not begun, though the last sweep was to train it") for name in _not_begun(folder)]
    if not runs and unusable:
        raise UserError("\n".join(unusable))
    if not runs:
        raise UserError(
            f"none of the {len(folders)} runs in {folder} is finished; give the command that trains them again, it "
            "goes on where they stopped"
        )
    runs.sort(key=lambda scored: (*method_order(scored.run.method), scored.run.seed))
    for why_left_out in (_copies, _foreign, _replaced, _diverged):
        reasons = why_left_out(runs)
        left_out += [LeftOut(scored.run.name, reason) for scored, reason in reasons.items()]
        runs = [scored for scored in runs if scored not in reasons]
    kept = [scored.run for scored in runs]
    warnings = [
        *_cut_short(kept),
        *_best_is_last(kept),
        *_diverged_later(kept),
        *_files_left_out(kept),
        *_differing_configs(kept),
    ]
    return Study(folder, kept, left_out, warnings)


def _other_names(study: Path) -> list[str]:
    """``<method>/<name>`` of the folders that hold a run but do not have the name of one."""
    return [
        f"{method.name}/{run.name}"
        for method in visible_folders(study)
        for run in visible_folders(method)
        if run.name.startswith("seed")
        and not re.fullmatch(r"seed\d+", run.name)
        and ((run / "result.json").exists() or (run / "config.yaml").exists())
    ]


def _not_begun(study: Path) -> list[str]:
    """``<method>/seed<seed>`` of the runs of the last sweep that have no folder."""
    begun = {(run.parent.name, int(run.name.removeprefix("seed"))) for run in seed_folders(study)}
    swept = swept_runs(study)
    methods = {method for method, _ in begun}
    missing = swept - begun
    if methods - {method for method, _ in swept}:
        # The note of a sweep has the names of files in conf/method, and a user's file may name its method otherwise.
        missing = {(method, seed) for method, seed in missing if method in methods or method in METHODS}
    ordered = sorted(missing, key=lambda run: (method_order(run[0]), run[1]))
    return [f"{method}/seed{seed}" for method, seed in ordered]


def _progress(run_folder: Path) -> str:
    """How far an unfinished run came. The run may be writing its files now, so nothing here is an error."""
    done = epochs_done(run_folder)
    if not done:
        return "no result, no epoch done"
    try:
        total = f" of {plain_yaml(run_folder / 'config.yaml')['trainer']['max_epochs']}"
    except (OSError, ValueError, LookupError, TypeError, YAMLError):
        total = ""
    return f"no result, {done}{total} epochs done"


def _read_run(folder: Path, result: dict[str, Any]) -> Run:
    check_result(folder, result)
    if f"{result['method']}/seed{result['seed']}" != f"{folder.parent.name}/{folder.name}":
        raise UserError(
            f"{folder} holds the result of {result['method']}, seed {result['seed']}, so it is a copy or was renamed; "
            "move it out of the study"
        )
    config = checked_config(folder)
    run = Run(folder, result, config)
    method, seed = run.setting("method.name", run.method), run.setting("seed", run.seed)
    if (method, seed) != (run.method, run.seed):
        raise UserError(
            f"{folder} has the configuration of {method}, seed {seed}, but the result of {run.method}, seed "
            f"{run.seed}; move it out of the study"
        )
    return run


@dataclass(frozen=True, eq=False)
class _ScoredRun:
    """A run and what its test scores say before they are averaged."""

    run: Run
    images: int
    fingerprint: str  # of the images by path, label and generator
    digest: str  # of the bytes of their files; "" if not known
    logits: str
    not_finite: int

    @property
    def comparable(self) -> tuple[object, ...]:
        """What runs must share to be compared: the test images, the choice of the unseen ones among them, and what the
        human maps were replaced by as a control."""
        result, control = self.run.result, self.run.setting("data.human_maps.control") or "none"
        return self.fingerprint, control, tuple(result["train_generators"]), tuple(result.get("relatives", []))


class TestImages:
    """Tells sets of test images apart. Most runs have the images of the run before, which a comparison finds far sooner
    than a fingerprint."""

    def __init__(self) -> None:
        self._last: tuple[pd.DataFrame, str] | None = None

    def fingerprint(self, scores: pd.DataFrame) -> str:
        """The same for the same images in any order."""
        images = scores[["path", "label", "generator"]]
        if self._last is None or not images.equals(self._last[0]):
            rows = pd.util.hash_pandas_object(images.astype("str"), index=False).to_numpy()
            self._last = images, hashlib.sha256(np.sort(rows).tobytes()).hexdigest()
        return self._last[1]


def _scored(run: Run, images: TestImages) -> _ScoredRun:
    scores = run.test_scores(("path", *SCORE_COLUMNS))
    finite = np.isfinite(scores[["logit_real", "logit_synthetic", "cam_entropy"]]).all(axis=1)
    # Read here, so that a run with a damaged table is left out of everything.
    _, _ = run.epochs, run.val_scores()
    logits = hashlib.sha256(scores[["logit_real", "logit_synthetic"]].to_numpy().tobytes()).hexdigest()
    digest = images_of(run.folder / "scores" / "test.parquet")
    return _ScoredRun(run, len(scores), images.fingerprint(scores), digest, logits, int((~finite).sum()))


def _copies(runs: list[_ScoredRun]) -> dict[_ScoredRun, str]:
    """Why runs are left out whose logits are those of another run of their method to the last bit: two seeds never
    agree like that, unless they diverged and every logit is NaN."""
    first: dict[tuple[str, str], _ScoredRun] = {}
    reasons = {}
    for scored in runs:
        original = first.setdefault((scored.run.method, scored.logits), scored)
        if original is not scored and not scored.not_finite:
            reasons[scored] = f"its test scores are those of {original.run.name} to the last digit, so it is a copy"
    return reasons


def _foreign(runs: list[_ScoredRun]) -> dict[_ScoredRun, str]:
    """Why runs are left out that cannot be compared with most of the others.

    Raises:
        UserError: as many runs can be compared with each other, but not with these.
    """
    (most, count), *others = Counter(scored.comparable for scored in runs).most_common()
    reference = next(scored for scored in runs if scored.comparable == most)
    reasons = {}
    for scored in runs:
        if scored.comparable == most:
            continue
        if scored.comparable[:2] == reference.comparable[:2]:
            how = "trained with different generators, so that other test images are unseen"
        elif scored.fingerprint == reference.fingerprint:
            how = "trained with and without a control of the human maps (data.human_maps.control), or with another one"
        else:
            how = (
                f"scored on different test images ({scored.images} and {reference.images}, compared by path, label and "
                "generator), so that they cannot be compared"
            )
        if others[0] == (scored.comparable, count):
            raise UserError(
                f"{reference.run.folder} and {scored.run.folder} were {how}; give one of them a study= of its own"
            )
        reasons[scored] = f"this run and {reference.run.name} were {how}"
    return reasons


def _replaced(runs: list[_ScoredRun]) -> dict[_ScoredRun, str]:
    """Why runs are left out whose test images had other bytes than those of most others, under the same names."""
    alike = usual(scored.digest for scored in runs)
    why = "scored on test images whose files have other bytes than those of most runs, under the same names"
    remedy = f"{typed('evaluate')} with overwrite=true scores all on those that are there now"
    return {scored: f"{why}; {remedy}" for scored in runs if scored.digest not in alike}


def _diverged(runs: list[_ScoredRun]) -> dict[_ScoredRun, str]:
    """Why runs are left out whose scores are not finite. Raises UserError if that is every run."""
    reasons = {
        scored: f"diverged: {scored.not_finite} of {scored.images} test scores are not finite"
        for scored in runs
        if scored.not_finite
    }
    if len(reasons) == len(runs):
        raise UserError(
            f"every finished run in {runs[0].run.folder.parent.parent} diverged (its test scores are not finite); "
            "train with a lower learning rate, protocol.optimizer.lr"
        )
    return reasons


def _differing_configs(runs: list[Run]) -> list[str]:
    """A sentence for each key of the configuration that differs between runs, or between the runs of a method, though
    it should not.

    The values are left out: a report is passed on, and they may be paths or worse.
    """
    warnings = []
    for method in dict.fromkeys(run.method for run in runs):
        for key, differing in _differing_keys([run for run in runs if run.method == method]):
            if is_below(key, METHOD_KEYS):
                warnings.append(f"The runs of {method} differ in {key}: {differing}; their mean is that of no method.")
    keys = ("data_hash", "images_hash", "map_range")
    data, images, ranges = ({run.result.get(key, "") for run in runs} for key in keys)
    for values, what in (
        (data, "The manifest was changed between runs, so that not all saw the same data"),
        (images - {""}, "Files of training or validation images, or of their human maps, were changed between runs"),
        (ranges, "Some runs were trained by a version that did not scale each human map to its own range"),
    ):
        if len(values) > 1:
            warnings.append(f"{what}; a difference between methods may come from that.")
    varied = (*VARIED, *run_config.DATA_FOLDER_KEYS) if len(images) == 1 and images != {""} else VARIED
    for key, differing in _differing_keys(runs):
        if not is_below(key, varied):
            warnings.append(f"The runs differ in {key}: {differing}; a difference between methods may come from that.")
    return warnings


def _differing_keys(runs: list[Run]) -> list[tuple[str, str]]:
    """Each key of the configuration that differs between runs, sorted, and the names of the runs that differ."""
    configs = [scientific_config(run.config) for run in runs]
    found = []
    for key in sorted({key for config in configs for key in config}):
        values = [repr(config.get(key)) for config in configs]
        usual, count = Counter(values).most_common(1)[0]
        if count < len(runs):
            others = [run.name for run, value in zip(runs, values, strict=True) if value != usual]
            found.append((key, f"{wording.first_few(others)} from the other {count}"))
    return found


def is_below(key: str, names: Sequence[str]) -> bool:
    """Whether a key of the configuration is one of these, or belongs to one: ``data.seed`` to ``data``."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _diverged_later(runs: list[Run]) -> list[str]:
    """A sentence on the runs whose CAM entropy is not a number in some epochs, which then have no mean."""
    names = [run.name for run in runs if run.epochs["train/cam_entropy"].isna().any()]
    if not names:
        return []
    return [
        f"In some epochs of {wording.first_few(names)} the CAM entropy is not a number, as after a run has diverged. "
        "The epoch that is scored is an earlier one; in the figure by epoch the line of the method has a gap there."
    ]


def _cut_short(runs: list[Run]) -> list[str]:
    """A sentence on the runs that ended before their last epoch, and one on those that left out images."""
    warnings = []
    planned = {run: run.setting("trainer.max_epochs") for run in runs}
    ended = [run for run in runs if type(planned[run]) is int and len(run.epochs) < planned[run]]
    if ended:
        named = [f"{run.name} (epoch {len(run.epochs)} of {planned[run]})" for run in ended]
        warnings.append(f"These runs ended before their last epoch, by a callback or a time limit: {', '.join(named)}.")
    trainers = {run.name: run.setting("trainer") for run in runs}
    partial = [name for name, trainer in trainers.items() if isinstance(trainer, dict) and images_left_out(trainer)]
    if partial:
        warnings.append(
            f"{wording.first_few(partial)} left out images that they were validated or scored with, by an option of "
            "the Trainer; their figures are of the others."
        )
    return warnings


def _best_is_last(runs: list[Run]) -> list[str]:
    """A sentence on the runs whose best epoch is their last of several, by method."""
    last = Counter(run.method for run in runs if 0 < len(run.epochs) - 1 == run.result.get("best_epoch"))
    if not last:
        return []
    of = Counter(run.method for run in runs)
    some = [f"{count} of {of[method]} runs of {method}" for method, count in last.items()]
    named = wording.listed(["every run"] if last == of else some)
    return [
        f"The last epoch is the one of the highest validation accuracy, which is scored, in {named}: longer training "
        "might change these, so methods may be compared at unequal fit. See the table of epochs."
    ]


def _files_left_out(runs: list[Run]) -> list[str]:
    """A sentence for each split and kind of file in which runs left out files that could not be used."""
    sentences = []
    unread = Counter()
    for run in runs:
        unread |= Counter(flatten(run.result.get("unread", {})))  # the greater of two counts
    if unread:
        found = ", ".join(f"{count} {kind}" for kind, count in sorted(unread.items()))
        sentences.append(f"Pictures in the folder of the data were not read, for their format: {found}.")
    left_out = [flatten(run.result.get("left_out", {})) for run in runs]
    for split in SPLITS:
        for kind, words in (("images", "images"), ("human_maps", "human maps")):
            counts = {files.get(f"{split}.{kind}", 0) for files in left_out}
            if max(counts):
                up_to = "Up to " if len(counts) > 1 else ""
                sentences.append(
                    f"{up_to}{max(counts)} {words} of split {split} could not be used and were left out "
                    "(data.skip_broken=true)."
                )
    return sentences
