"""The processes of a training: a single one, or those started by torchrun, one per device."""

import gc
import os
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Result = TypeVar("Result")


@dataclass(frozen=True)
class Processes:
    """The number of processes and this one's rank; the first is the main process, which writes and prints."""

    rank: int = 0
    world_size: int = 1
    talk: Callable[[], dist.ProcessGroup | None] = lambda: None
    """The group for messages between CPUs (not gradients); a weak reference, so that it ends with `joined`."""

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which writes files and shows progress."""
        return self.rank == 0

    def shards(self, asked: bool) -> bool:
        """Whether networks are sharded: if `asked`, and there are several processes."""
        return asked and self.world_size > 1

    def rows(self, batch: int) -> slice:
        """The rows of a shared batch for this process: parts as equal as possible, in order of rank."""
        return slice(batch * self.rank // self.world_size, batch * (self.rank + 1) // self.world_size)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over the processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def on_main(self, action: Callable[[], Result]) -> Result:
        """Do `action` in the main process, and return its result, or raise its error, in all processes."""
        if self.world_size == 1:
            return action()
        message: list[Any] = [None, None]  # result, error
        if self.is_main:
            try:
                message[0] = action()
            except Exception as error:
                dist.broadcast_object_list([None, _told(error)], src=0, group=self.talk())
                raise
        dist.broadcast_object_list(message, src=0, group=self.talk())
        if message[1] is not None:
            raise message[1]
        return message[0]

    def gathered(self, value: Result) -> list[Result]:
        """The values of all processes, in order of rank."""
        found: list[Any] = [value] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(found, value, group=self.talk())
        return found


ALONE = Processes()


class Vote:
    """Flags that any process can raise and all see one call later, without waiting for each other.

    The reduction runs during the iteration between the two calls. A single process sees its own flags at once.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._asked: tuple[Tensor, dist.Work] | None = None

    def __call__(self, *flags: bool) -> tuple[bool, ...]:
        """Raise `flags`; returns the flags that any process raised in the previous call."""
        if self._processes.world_size == 1:
            return flags
        answer = self.close() or [False] * len(flags)
        raised = torch.tensor(flags, dtype=torch.int32)
        work = dist.all_reduce(raised, dist.ReduceOp.MAX, group=self._processes.talk(), async_op=True)
        self._asked = (raised, work) if work is not None else None
        return tuple(answer)

    def close(self) -> list[bool]:
        """Finish the pending reduction, and return its flags."""
        if self._asked is None:
            return []
        raised, work = self._asked
        self._asked = None
        work.wait()
        return [bool(flag) for flag in raised.tolist()]


@contextmanager
def joined(device: torch.device | str) -> Generator[tuple[Processes, torch.device]]:
    """Join the processes started by torchrun; gives them and this one's device. Without torchrun: `ALONE`, `device`.

    On GPUs, the process of local rank n takes device n. GPUs communicate by NCCL, CPUs by Gloo.
    """
    device = torch.device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 and not dist.is_initialized():
        yield ALONE, device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        talk: Any = weakref.ref(dist.new_group(backend="gloo"))
        yield Processes(dist.get_rank(), dist.get_world_size(), talk), device
    finally:
        if ours:
            # Groups must end here: if a group's thread frees a tensor while Python shuts down, the process aborts.
            # Reference cycles of a finished trainer keep groups alive, hence collect; tracebacks hold `talk` weakly.
            gc.collect()
            dist.destroy_process_group()


def _told(error: Exception) -> Exception:
    """An error as other processes raise it: of a type that the command line handles, with the same message."""
    kinds = (kind for kind in (ValueError, OSError) if isinstance(error, kind))
    return next(kinds, RuntimeError)(str(error) or type(error).__name__)
