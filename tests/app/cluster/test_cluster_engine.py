"""The engine with work of known cost: no model is loaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from distributed import Client, LocalCluster
from material.clusters import scheduler, worker
from material.stub_work import Stub
from places import ROOT

from app.cluster import engine
from app.cluster.admission import Admission
from app.cluster.engine import ClusterError, Place, shared_out
from app.cluster.work import SharedFile, WorkLostError


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A scheduler with two workers."""
    how: Any = {"threads_per_worker": 1, "dashboard_address": ":0", "memory_limit": 0}
    few = {"distributed.scheduler.allowed-failures": 1}
    with (
        dask.config.set(engine._CONFIGURATION | few),
        LocalCluster(n_workers=2, silence_logs=50, **how) as local,
    ):
        yield local


def done(
    tasks: list[tuple[Any, ...]], address: str, stub: Stub | None = None, time_limit: float = 600.0
) -> dict[int, Any]:
    """By each task's number, what came of it."""
    stub = stub or Stub()
    place = Place(None, address, 1, time_limit)
    return {task[0]: result for task, result in shared_out(place, stub, stub.facts, tasks)}


def test_each_piece_is_done_once_and_all_workers_do_some(cluster: LocalCluster) -> None:
    stub, place = Stub(cost=0.01), Place(None, cluster.scheduler_address, 1, 600.0)
    results = list(shared_out(place, stub, stub.facts, ((i,) for i in range(40))))
    assert sorted(task for task, _ in results) == [(i,) for i in range(40)]
    assert all(number == 2 * task[0] for task, (number, _) in results)
    assert len({process for _, (_, process) in results}) == 2


def test_keys_of_pieces_that_are_done_are_used_again(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[Any] = []
    submit = Client.submit

    def noted(*args: Any, key: Any, **how: Any) -> Any:
        keys.append(key)
        return submit(*args, key=key, **how)

    monkeypatch.setattr(Client, "submit", noted)
    monkeypatch.setattr("app.cluster.engine._KEYS", 10)
    stub, place = Stub(), Place(None, cluster.scheduler_address, 1, 600.0)
    done = list(shared_out(place, stub, stub.facts, ((i,) for i in range(60))))
    assert sorted(task for task, _ in done) == [(i,) for i in range(60)]
    assert all(result[0] == 2 * task[0] for task, result in done)
    assert len(keys) == 60
    assert len(set(keys)) <= 10 + 1 + 2 * 2


def test_no_more_work_is_taken_than_keeps_the_workers_busy(cluster: LocalCluster) -> None:
    taken = 0

    def tasks() -> Iterator[tuple[int]]:
        nonlocal taken
        for taken in range(1, 100):
            yield (taken,)

    stub, place = Stub(), Place(None, cluster.scheduler_address, 1, 600.0)
    for number, _ in enumerate(shared_out(place, stub, stub.facts, tasks()), start=1):
        assert taken < number + 2 * engine._AHEAD


def test_what_a_worker_that_dies_or_hangs_had_is_done_by_another(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    tasks: list[tuple[Any, ...]] = [(i,) for i in range(10)]
    tasks[2] = (2, str(tmp_path / "died"))
    tasks[5] = (5, str(tmp_path / "died too"))
    found = done(tasks, cluster.scheduler_address)
    assert [found[i][0] for i in range(10)] == list(range(0, 20, 2))
    assert (tmp_path / "died too").exists()


def test_work_that_ends_every_worker_is_given_up_and_the_rest_is_done(cluster: LocalCluster) -> None:
    found = done([(1, "die"), (2, "hang"), (3,)], cluster.scheduler_address, time_limit=1.0)
    for lost in (found[1], found[2]):
        assert isinstance(lost, WorkLostError)
        assert str(lost) == "ended 2 workers: for want of memory, or in more than 1 s"
    assert found[3][0] == 6


def test_a_fault_is_raised_here(cluster: LocalCluster) -> None:
    with pytest.raises(RuntimeError, match="as asked"):
        done([(1, "fail")], cluster.scheduler_address)


def test_a_worker_that_would_compute_something_else_is_refused_by_name(capsys: Any) -> None:
    stub, reason = Stub(elsewhere={"weights": "b"}), "weights is b there, and a here"
    with pytest.raises(ClusterError, match=f"no worker can be used: {reason}"):
        list(shared_out(Place(1, None, 1, 600.0), stub, stub.facts, [(1,)]))
    assert capsys.readouterr().err == f"worker 0 is refused: {reason}\n"


def test_other_versions_are_a_reason_as_well() -> None:
    for versions, reason in (({"numpy": "1.0"}, "it has numpy 2"), ({"no-such": "1"}, "it lacks no-such")):
        with pytest.raises(ValueError, match=reason):
            Admission("run", versions, b"", {})._load(1)


def test_workers_join_in_the_middle(capsys: Any, tmp_path: Path) -> None:
    stub = Stub(cost=0.01)
    with scheduler() as (address, _):
        started, workers, processes = [], [], set()
        try:

            def tasks() -> Iterator[tuple[int]]:
                for number in range(10**6):
                    if number in (0, 20):
                        workers.append(worker(address))
                    if len(processes) == 2:
                        return
                    started.append(number)
                    yield (number,)

            found = []
            for task, (_, process) in shared_out(Place(None, address, 1, 600.0), stub, stub.facts, tasks()):
                found.append(task[0])
                processes.add(process)
        finally:
            for one in workers:
                one.kill()
                one.communicate()
    assert sorted(found) == started
    assert "has no workers yet; waiting for one" in capsys.readouterr().err


def test_where_the_scheduler_is_gone_the_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cluster.engine._CONNECT", 3)  # for as long it is tried again
    with scheduler() as (address, process):
        one = worker(address, "--no-nanny")
        try:
            stub = Stub()
            results = shared_out(
                Place(None, address, 1, 600.0), stub, stub.facts, ((i,) for i in range(10**6))
            )
            task, result = next(results)
            assert result[0] == 2 * task[0]
            process.kill()
            with pytest.raises(ClusterError, match=f"scheduler {address}: is gone"):
                for _ in results:
                    pass
        finally:
            one.kill()
            one.communicate()
    with pytest.raises(ClusterError, match="does not answer"):
        list(shared_out(Place(None, address, 1, 600.0), stub, stub.facts, [(1,)]))


PARENT = """
from app.cluster.engine import Place, shared_out
from material.stub_work import Stub
if __name__ == '__main__':
    stub = Stub()
    for task, (number, _) in shared_out(Place(2, None, 1, 600.0), stub, stub.facts, ((i,) for i in range({tasks}))):
        print(flush=True)
"""


def parent(folder: Path, tasks: int) -> subprocess.Popen[bytes]:
    """A process that has tasks done by two of its own, with a line for each."""
    (folder / "parent.py").write_text(PARENT.format(tasks=tasks))
    return subprocess.Popen(
        [sys.executable, str(folder / "parent.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
    )


def test_a_ctrl_c_does_nothing_to_the_workers_not_even_while_they_start(tmp_path: Path) -> None:
    process = parent(tmp_path, 4)
    while process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGINT)
        time.sleep(0.02)
    assert (process.wait(), *process.communicate()) == (0, b"\n" * 4, b"")


def test_nothing_listens_to_other_machines_and_all_processes_end_with_the_first(tmp_path: Path) -> None:
    process = parent(tmp_path, 10**9)
    assert process.stdout is not None
    assert process.stdout.readline() == b"\n"
    every = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    assert len(every) >= 3
    listening = [c.laddr.ip for one in every for c in one.net_connections("inet") if c.status == "LISTEN"]
    assert len(listening) >= 3
    assert set(listening) == {"127.0.0.1"}
    process.send_signal(signal.SIGKILL)
    # The workers have the other end of the pipes as well: they close when all are gone.
    assert process.communicate(timeout=60)[1] == b""
    assert psutil.wait_procs(every, timeout=60)[1] == []


def test_two_runs_on_one_scheduler_keep_apart(cluster: LocalCluster) -> None:
    first, second = Stub(facts={"weights": "a"}), Stub(facts={"weights": "b"})
    place = Place(None, cluster.scheduler_address, 1, 600.0)
    pairs = zip(
        shared_out(place, first, first.facts, [(1,), (2,)]),
        shared_out(place, second, second.facts, [(3,), (4,)]),
        strict=True,
    )
    assert sorted(result[0] for pair in pairs for _, result in pair) == [2, 4, 6, 8]
    with Client(cluster.scheduler_address) as client:
        assert client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.worker_plugins)) == [
            "shuffle"
        ]


def test_a_file_is_read_where_it_is_the_same_or_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(bytes(100_000))
    file, sent = (SharedFile.of(str(path), send=send) for send in (False, True))
    with file.at_hand() as found:
        assert found == str(path)
    path.write_bytes(bytes(99_999) + b"\1")
    with file.at_hand() as found:  # its length and beginning are what is looked at
        assert found == str(path)
    path.write_bytes(bytes(99_999))
    with pytest.raises(Exception, match=r"a.wav: is another file \(99,999 bytes\) on worker"), file.at_hand():
        pass
    path.unlink()
    with pytest.raises(Exception, match=r"a\.wav: is not there on worker"), file.at_hand():
        pass
    with sent.at_hand() as found:
        assert Path(found).read_bytes() == bytes(100_000)
    assert SharedFile.of(str(path), send=True) == SharedFile(str(path))
