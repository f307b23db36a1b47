"""What every command shares: a user's mistake is one sentence, not a traceback."""

import functools
from collections.abc import Callable

from hydra.errors import CompactHydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from saliency_entropy.errors import UserError
from saliency_entropy.run_folder import register_resolvers

register_resolvers()


class _OneSentence(CompactHydraException):
    """Hydra prints this without a traceback (HYDRA_FULL_ERROR=1 shows it) and exits with 1; in a sweep the other
    jobs still run."""


def command(task: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Wrap the task function of a Hydra command so that a :class:`UserError` reaches the user as its sentence."""

    @functools.wraps(task)
    def wrapped(config: DictConfig) -> None:
        try:
            task(config)
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None:
                if isinstance(cause, UserError | OmegaConfBaseException):
                    raise _OneSentence(str(cause).strip()) from error
                cause = cause.__cause__
            raise

    return wrapped
