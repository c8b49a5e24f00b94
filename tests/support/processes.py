"""Processes that a test started: each may end between two looks at it."""

import psutil


def words(process):
    """Its command line; empty where it has ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # a zombie too
        return []


def tree(pid=None):
    """A process, this one if none is named, and all that it started; none where it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def below(pid=None):
    """All that a process started, this one if none is named."""
    return tree(pid)[1:]


def workers(pid=None):
    """Worker processes below one; other children watch over resources."""
    return [p for p in below(pid) if any("spawn_main" in word for word in words(p))]


def kill(process):
    """Kill it; whether there was one left to kill."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True


def listening(processes):
    """Addresses and ports on which processes accept connections."""
    found = []
    for process in processes:
        try:
            found += process.net_connections()
        except psutil.NoSuchProcess:
            continue
    return {c.laddr for c in found if c.status == psutil.CONN_LISTEN}
