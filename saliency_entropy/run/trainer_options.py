"""Options of a run, and callbacks of Lightning's Trainer, with which a figure would not mean what its name says."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from saliency_entropy.errors import UserError

# Option -> the value at which Lightning leaves it alone, and what to give instead of another one.
REFUSED = {
    "fast_dev_run": (False, "give debug=fast"),
    "overfit_batches": (0, "give data.train_batches=N, or debug=overfit"),
    "limit_test_batches": (1.0, "a run scores all test images; give debug=fast to try it on a few"),
    "max_steps": (-1, "a run has whole epochs; give trainer.max_epochs=N"),
    "val_check_interval": (1.0, "a run is validated after every epoch; leave it out"),
    "check_val_every_n_epoch": (1, "the best epoch is chosen among all, so each is validated; leave it out"),
}
# Options with which a run sees a part of the images that its figures are named after.
PARTIAL = ("limit_val_batches", "limit_predict_batches")

_NO_LOGGER = (
    "it needs a Lightning logger, which a run has not: metrics.csv has the figures of every epoch; leave it out"
)
_NOT_SAVED = "the weights that it averages are not those that are saved and scored; leave it out"
_CHANGES_RUN = "the run would not be the one that its configuration describes; give the value itself"
# By name, since Lightning is slow to import and a report only asks for images_left_out.
REFUSED_CALLBACKS = {
    "StochasticWeightAveraging": _NOT_SAVED,
    "WeightAveraging": _NOT_SAVED,
    "LearningRateMonitor": _NO_LOGGER,
    "DeviceStatsMonitor": _NO_LOGGER,
    "BatchSizeFinder": _CHANGES_RUN,
    "LearningRateFinder": _CHANGES_RUN,
}


def images_left_out(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The options of ``trainer`` with which a run leaves out images that it is validated or scored with."""
    options = {name: trainer.get(name) for name in (*PARTIAL, "overfit_batches", "fast_dev_run")}
    neutral = dict.fromkeys(PARTIAL, 1.0) | {"overfit_batches": 0, "fast_dev_run": False}
    return {name: value for name, value in options.items() if not _is_neutral(value, neutral[name])}


def check_options(config: Mapping[str, Any]) -> None:
    """Refuse options of the Trainer with which the figures of a run would be those of something else.

    Args:
        config: the resolved configuration of a run.

    Raises:
        UserError: names the option and what to give instead.
    """
    options = config["trainer"]
    for name, (neutral, remedy) in REFUSED.items():
        if not _is_neutral(options.get(name), neutral):
            raise UserError(f"trainer.{name}={options[name]} cannot be used: {remedy}")
    for name in ("limit_train_batches", *PARTIAL):
        if options.get(name) is not None and not options[name]:
            raise UserError(f"trainer.{name}={options[name]} leaves no image; give a number above 0, or leave it out")
    size = config["backbone"]["image_size"]
    if (shown := config["data"].get("image_size", size)) != size:
        raise UserError(
            f"data.image_size is {shown}, but backbone.image_size, by which a detector is used later, is {size}: set "
            "backbone.image_size alone"
        )
    # A debug run is apart from the studies, and one without checkpoints leaves no result.
    if config["checkpoints"] and not str(config["study"]).startswith("debug/"):
        for name, value in images_left_out(options).items():
            raise UserError(
                f"trainer.{name}={value} leaves out images that the run is judged by: only debug=fast, without a "
                "study= of its own, may do that"
            )


def check_callbacks(callbacks: Iterable[object], figures: Collection[str]) -> None:
    """Refuse callbacks that cannot work in a run, or would change what it is.

    Args:
        callbacks: of the Trainer.
        figures: names of the figures of an epoch, which a callback may monitor.

    Raises:
        UserError: names the callback.
    """
    for callback in callbacks:
        name = type(callback).__name__
        for kind, why in REFUSED_CALLBACKS.items():
            if kind in [base.__name__ for base in type(callback).__mro__]:
                raise UserError(f"the callback {name} cannot be used: {why}")
        monitor = getattr(callback, "monitor", None)
        if monitor is not None and monitor not in (*figures, "epoch", "step"):  # Lightning has the last two
            raise UserError(f"the callback {name} monitors {monitor!r}, which no epoch has: {', '.join(figures)}")


def _is_neutral(value: Any, neutral: Any) -> bool:
    # By the type as well: 1 is one batch, 1.0 all of them.
    return value is None or (value == neutral and (neutral != 1.0 or type(value) is type(neutral)))
