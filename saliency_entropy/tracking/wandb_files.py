"""The files that the attempts of a W&B run have left on disk. Each attempt writes a folder
``wandb/[offline-]run-<time>-<id>``, whose file ``run-<id>.wandb`` holds all that it logged, whether it was sent or not.

W&B 0.31 has no reader for it in Python; and ``wandb sync`` numbers the steps of an attempt anew, whatever ``step`` they
were logged with, so that an epoch that two offline attempts logged would be in the W&B run twice.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from wandb.proto.wandb_internal_pb2 import Record

HEADER_BYTES = 7  # W&B's own
BLOCK_BYTES = 32768
CHUNK = struct.Struct("<IHB")  # checksum, length, kind
WHOLE, LAST = 1, 4  # kinds of chunks that end a record


@dataclass(frozen=True)
class Attempt:
    """What one process logged of a W&B run.

    Args:
        file: the ``.wandb`` file of the process.
        rows: the history, with a dict of values by key for each call of ``log``.
    """

    file: Path
    rows: list[dict[str, Any]]

    @property
    def offline(self) -> bool:
        return self.file.parent.name.startswith("offline-")

    @property
    def sent(self) -> bool:
        """Whether the server is known to have all of it."""
        return sent_mark(self.file).exists()

    @property
    def epochs(self) -> set[int]:
        return {row["epoch"] for row in self.rows if "epoch" in row}


def sent_mark(file: Path | str) -> Path:
    """The file that ``wandb sync`` leaves beside a ``.wandb`` file once that is sent."""
    return Path(f"{file}.synced")


def read_wandb_attempts(run_folder: Path, identity: str) -> list[Attempt]:
    """The attempts of the W&B run ``identity`` in a run's folder, from the first to the last."""
    files = run_folder.glob(f"wandb/*run-*-{identity}/run-{identity}.wandb")
    in_time = sorted(files, key=lambda file: file.parent.name.removeprefix("offline-"))
    return [Attempt(file, [_values(row) for row in records(file) if row.HasField("history")]) for file in in_time]


def records(file: Path) -> Iterator[Record]:
    """The records of a ``.wandb`` file, as far as it was written. It is a log in LevelDB's format, and each record is a
    protocol buffer."""
    content = file.read_bytes()
    position, data = HEADER_BYTES, b""
    while position + CHUNK.size <= len(content):
        left = BLOCK_BYTES - position % BLOCK_BYTES
        if left < CHUNK.size:  # no chunk begins so close to the end of a block
            position += left
            continue
        _, length, kind = CHUNK.unpack_from(content, position)
        chunk = content[position + CHUNK.size : position + CHUNK.size + length]
        if kind == 0 or len(chunk) < length:  # the process was killed here
            return
        data += chunk
        position += CHUNK.size + length
        if kind in (WHOLE, LAST):
            try:
                yield Record.FromString(data)
            except DecodeError:
                return
            data = b""


def _values(record: Record) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
