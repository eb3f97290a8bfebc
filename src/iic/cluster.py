"""Shards on the workers of a Dask cluster (extra `cluster`); what is sent and returned is plain arrays and weights."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import torch
from dask.distributed import Client, WorkerPlugin, as_completed, get_worker

from iic.errors import UserError
from iic.explainers.work import explain_shard

if TYPE_CHECKING:
    from iic.explainers.attributions import Maps
    from iic.explainers.context import Context
    from iic.explainers.work import Shard

AHEAD = 2  # shards at each worker, one of them waiting: no worker waits, and memory stays bounded
PATIENCE, KEEPER = "10s", "iic-context"
# A worker explains one shard at a time, with all of its threads: Captum keeps numbers on the modules of the one network
# that they share, and the libraries draw from global generators.
TURN = threading.Lock()


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
        UserError: the scheduler does not answer, it has no workers, or another run has taken them over.
    """
    try:
        client = Client(scheduler, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise UserError(f"The Dask scheduler at '{scheduler}' does not answer ({error}): start it first.") from error
    with client:
        if not client.nthreads():
            raise UserError(f"The Dask scheduler at '{scheduler}' has no workers: start some with `dask worker`.")
        run = uuid.uuid4().hex
        client.register_plugin(_Keeper(context, run), name=KEEPER)  # workers that come later get it too
        waiting, left, running = {}, iter(shards), as_completed()

        def send() -> None:
            """Fill up what is at the workers, however many there are by now."""
            room = max(AHEAD * len(client.nthreads()), 1) - len(waiting)
            for shard in islice(left, max(room, 0)):
                future = client.submit(_explain_here, run, method, shard, twin, pure=False)
                waiting[future.key] = shard
                running.add(future)

        send()
        for future in running:
            result = future.result()  # raises what the worker raised
            shard = waiting.pop(future.key)
            future.release()
            send()
            yield shard, result


class _Keeper(WorkerPlugin):
    """Keeps on each worker what all shards of a run need; sent once. The next run's takes its place."""

    def __init__(self, context: Context, run: str) -> None:
        self.context, self.run = context, run

    def setup(self, worker) -> None:
        """Called where it arrives."""


def _explain_here(run: str, method: str, shard: Shard, twin: bool) -> tuple[Maps, float]:
    """On a worker: one shard at a time, with as many torch threads as Dask gave it."""
    worker = get_worker()
    kept = worker.plugins[KEEPER]
    if kept.run != run:
        raise UserError("Another run has taken over the Dask workers: give each run a scheduler of its own.")
    with TURN:
        torch.set_num_threads(worker.state.nthreads)
        return explain_shard(method, kept.context, shard, twin=twin)
