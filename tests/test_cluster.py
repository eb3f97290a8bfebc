"""The same shards on a cluster: a scheduler and workers as processes of their own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_work import INDICES, PARAMS, TARGETS, make_context, run

from iic.errors import UserError
from iic.explainers.work import Shard


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A scheduler and two workers of one and two threads, as processes of their own: (address, worker processes)."""
    pytest.importorskip("distributed")
    folder = tmp_path_factory.mktemp("dask")
    address_file = folder / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1] / "src")])}
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment, "cwd": folder}
    words = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    scheduler = subprocess.Popen([*words, "--no-dashboard", "--scheduler-file", str(address_file)], **options)
    workers = []
    try:
        for _ in range(600):
            if address_file.exists() and address_file.read_text().endswith("}"):
                break
            time.sleep(0.1)
        address = json.loads(address_file.read_text())["address"]
        words = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny", "--no-dashboard"]
        workers = [subprocess.Popen([*words, "--nthreads", threads], **options) for threads in ("1", "2")]
        from distributed import Client

        with Client(address) as client:
            client.wait_for_workers(2, timeout=60)
        yield address, workers
    finally:
        for process in [*workers, scheduler]:
            process.kill()
            process.wait()


def test_a_cluster_gives_the_same_maps_and_loses_a_worker_without_loss(tmp_path, cluster):
    address, workers = cluster
    params = PARAMS.model_copy(update={"scheduler": address, "shard_size": 1})
    ticks = []

    def tick(images):
        ticks.append(images)
        if len(ticks) == 3:
            workers[0].kill()

    found = run(tmp_path / "cluster", params=params, tick=tick)
    here = run(tmp_path / "here", params=PARAMS.model_copy(update={"shard_size": 1}))
    np.testing.assert_allclose(found.values[:], here.values[:], atol=1e-6)
    np.testing.assert_array_equal(found.indices, here.indices)
    assert sum(ticks) == 10


def test_a_worker_of_two_threads_explains_one_shard_at_a_time(tmp_path, cluster):
    """DeepLift keeps numbers on the modules of the one network that a worker has."""
    address, _ = cluster
    found = run(tmp_path / "cluster", "deeplift", PARAMS.model_copy(update={"scheduler": address, "shard_size": 1}))
    here = run(tmp_path / "here", "deeplift", PARAMS.model_copy(update={"shard_size": 1}))
    scale = np.abs(here.values[:]).max()
    np.testing.assert_allclose(found.values[:], here.values[:], atol=1e-5 * scale)


def test_two_runs_at_one_cluster_do_not_mix(cluster):
    """The later one takes the workers; the earlier one says so, and never gets maps of the other's network."""
    from iic.cluster import on_cluster

    context, images = make_context()
    shards = [Shard(n, images[INDICES[[n]]], INDICES[[n]], TARGETS[[n]]) for n in range(8)]
    earlier, later = (on_cluster(cluster[0], "sobel", context, shards) for _ in range(2))
    next(earlier)
    assert len(list(later)) == 8
    with pytest.raises(UserError, match="taken over"):
        list(earlier)


def test_a_scheduler_that_is_not_there_is_a_sentence(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("iic.cluster.PATIENCE", "1s")
    with pytest.raises(UserError, match="does not answer"):
        run(tmp_path, params=PARAMS.model_copy(update={"scheduler": "tcp://127.0.0.1:9"}))
