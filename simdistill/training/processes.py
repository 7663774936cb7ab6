"""The processes of a training: this one alone, or those that torchrun started, one a device."""

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
    """How many processes train together, and which of them this is; the first is the main one: it writes and prints."""

    rank: int = 0
    world_size: int = 1
    talk: Callable[[], dist.ProcessGroup | None] = lambda: None
    """The group for messages between CPUs, apart from gradients; it is not held here, so that it ends with `joined`."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def shards(self, asked: bool) -> bool:
        """Whether networks are sharded, if that is `asked`: a process alone holds them whole."""
        return asked and self.world_size > 1

    def rows(self, batch: int) -> slice:
        """The rows of a shared batch that are for this process: parts as equal as can be, in order of rank."""
        return slice(batch * self.rank // self.world_size, batch * (self.rank + 1) // self.world_size)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over the processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def on_main(self, action: Callable[[], Result]) -> Result:
        """Let the first process do `action`, and hand its result, or its error, to all; they wait for it."""
        if self.world_size == 1:
            return action()
        message: list[Any] = [None, None]  # the result, or what went wrong
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


ALONE = Processes()


class Vote:
    """Flags that any process raises and all see alike, one call later: nobody waits for anybody.

    Between the two calls lies an iteration, in which the answers travel. A single process sees its own at once.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._asked: tuple[Tensor, dist.Work] | None = None

    def __call__(self, *flags: bool) -> tuple[bool, ...]:
        """Raise `flags`; returns those that any process raised in the call before."""
        if self._processes.world_size == 1:
            return flags
        answer = self.close() or [False] * len(flags)
        raised = torch.tensor(flags, dtype=torch.int32)
        work = dist.all_reduce(raised, dist.ReduceOp.MAX, group=self._processes.talk(), async_op=True)
        self._asked = (raised, work) if work is not None else None
        return tuple(answer)

    def close(self) -> list[bool]:
        """Receive what is still on its way."""
        if self._asked is None:
            return []
        raised, work = self._asked
        self._asked = None
        work.wait()
        return [bool(flag) for flag in raised.tolist()]


@contextmanager
def joined(device: torch.device | str) -> Generator[tuple[Processes, torch.device]]:
    """The processes that torchrun started, this one among them, and its device; alone on `device` if none did.

    On GPUs the n-th process of a machine takes the n-th of its devices. Numbers travel by NCCL between GPUs and by Gloo
    between CPUs.
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
            # Groups must end here: a thread of one that drops a tensor while Python ends aborts it. What holds them are
            # cycles about a trainer that is gone; one that an error's traceback keeps holds `talk` but weakly.
            gc.collect()
            dist.destroy_process_group()


def _told(error: Exception) -> Exception:
    """An error as other processes raise it: of the kinds that the command line explains, with the same words."""
    kinds = (kind for kind in (ValueError, OSError) if isinstance(error, kind))
    return next(kinds, RuntimeError)(str(error) or type(error).__name__)
