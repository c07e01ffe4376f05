"""Ends every process of a platform, found by a mark in its environment.

The mark is inherited by whatever a process starts (a worker's pool, a node's helper), survives the supervisor, and can not be
mistaken for another process that got the same pid later. It is `<data folder>#<random id of this start>`.
"""

import psutil

MARK = "REXIS_LOCAL_PLATFORM"


def members(mark: str) -> list[psutil.Process]:
    """Live processes, other than this one, whose mark starts with `mark`."""
    found = []
    for process in psutil.process_iter():
        try:
            # Another user's process is none of ours; one that ends meanwhile needs no ending.
            if process.pid != psutil.Process().pid and process.environ().get(MARK, "").startswith(mark):
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def sweep(mark: str, grace_s: float) -> int:
    """Terminate all members, kill those that are left after `grace_s`, and look again until none is left; returns how many there were."""
    ended = 0
    while found := members(mark):
        for process in found:
            _signal(process, kill=False)
        _, alive = psutil.wait_procs(found, timeout=grace_s)
        for process in alive:
            _signal(process, kill=True)
        psutil.wait_procs(alive, timeout=grace_s)
        ended += len(found)
    return ended


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        process.kill() if kill else process.terminate()
    except psutil.NoSuchProcess:
        return
