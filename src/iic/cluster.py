"""Shards on the workers of a Dask cluster (extra `cluster`); what is sent and returned is plain arrays and weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from dask.distributed import Client, WorkerPlugin, as_completed, get_worker

from iic.errors import UserError
from iic.explainers.work import explain_shard

if TYPE_CHECKING:
    from iic.explainers.attributions import Maps
    from iic.explainers.context import Context
    from iic.explainers.work import Shard

AHEAD = 2  # shards sent to each worker thread before the first comes back: none waits, and memory stays bounded
PATIENCE, KEEPER = "10s", "iic-context"


def on_cluster(
    scheduler: str, method: str, context: Context, shards: Iterable[Shard], *, twin: bool = False
) -> Iterator[tuple[Shard, tuple[Maps, float]]]:
    """Results as they come in. A worker that dies costs the shards that it was at; they go to another.

    Args:
        scheduler: its address, such as tcp://10.0.0.1:8786.
        method, twin: see `iic.explainers.work.explain_shard`.
        context: sent to every worker once.
        shards: read as workers become free.

    Raises:
        UserError: the scheduler does not answer, or it has no workers.
    """
    try:
        client = Client(scheduler, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise UserError(f"The Dask scheduler at '{scheduler}' does not answer ({error}): start it first.") from error
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise UserError(f"The Dask scheduler at '{scheduler}' has no workers: start some with `dask worker`.")
        client.register_plugin(_Keeper(context), name=KEEPER)  # workers that come later get it too
        waiting, left, running = {}, iter(shards), as_completed()

        def send(shard: Shard) -> None:
            future = client.submit(_explain_here, method, shard, twin, pure=False)
            waiting[future.key] = shard
            running.add(future)

        for _, shard in zip(range(AHEAD * threads), left, strict=False):
            send(shard)
        for future in running:
            result = future.result()  # raises what the worker raised
            shard = waiting.pop(future.key)
            future.release()
            following = next(left, None)
            if following is not None:
                send(following)
            yield shard, result


class _Keeper(WorkerPlugin):
    """Keeps on each worker what all its shards need; sent once."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def setup(self, worker) -> None:
        """Called where it arrives."""


def _explain_here(method: str, shard: Shard, twin: bool) -> tuple[Maps, float]:
    """On a worker: as many torch threads as Dask gave it."""
    worker = get_worker()
    torch.set_num_threads(worker.state.nthreads)
    return explain_shard(method, worker.plugins[KEEPER].context, shard, twin=twin)
