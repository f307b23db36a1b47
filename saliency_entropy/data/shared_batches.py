"""Which images of a batch, or which batches, a process has where several train one detector together.

A batch is that of one process, whatever their number: the batch size of a protocol is never multiplied, no image is
seen twice, and none is added so that all have equally many.
"""

from collections.abc import Iterable, Iterator

from torch.utils.data import BatchSampler, Sampler

from saliency_entropy.errors import UserError


class SplitBatches(Sampler[list[int]]):
    """Every batch, of which each process has a share, for training: the gradients of all shares make one step.

    Args:
        order: of the images, the same in every process; its ``set_epoch`` is called where it has one.
        batch_size: of all processes together.
        drop_last: leave out a last batch that is smaller. One with fewer images than processes is in any case.
        rank, processes: which process of how many.

    Raises:
        UserError: a batch has fewer images than there are processes.
    """

    def __init__(self, order: Iterable[int], batch_size: int, drop_last: bool, rank: int, processes: int) -> None:
        if batch_size < processes:
            raise UserError(
                f"a batch of {batch_size} images cannot be shared by {processes} devices (protocol.batch_size is that "
                "of all together); give a smaller trainer.devices"
            )
        self.sampler = order  # by this name Lightning finds it, and tells it the epoch
        self._batches = BatchSampler(order, batch_size, drop_last)
        self._rank, self._processes = rank, processes

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches:
            if len(batch) >= self._processes:
                # Neighbours go to different processes: the shares differ by one image at most.
                yield batch[self._rank :: self._processes]

    @property
    def left_out(self) -> int:
        """Images of a last batch that has fewer than there are processes."""
        left = len(self.sampler) % self._batches.batch_size
        return left if left < self._processes and not self._batches.drop_last else 0

    def __len__(self) -> int:
        return len(self._batches) - (self.left_out > 0)


class DealtBatches(Sampler[list[int]]):
    """Whole batches, dealt to the processes in turn, for validation and scoring: what is worked out from a batch as a
    whole is the same for any number of processes.

    Args:
        images: how many there are.
        batch_size: of each process.
        rank, processes: which process of how many.

    Raises:
        UserError: there is no batch for one of the processes.
    """

    def __init__(self, images: int, batch_size: int, rank: int, processes: int) -> None:
        self._batches = list(BatchSampler(range(images), batch_size, drop_last=False))[rank::processes]
        if images <= batch_size * (processes - 1):
            raise UserError(
                f"{images} validation or test images are too few for {processes} devices with batches of {batch_size}; "
                "give a smaller trainer.devices"
            )

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)
