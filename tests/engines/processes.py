"""Processes below this one, from /proc: workers of Ray and what they listen on."""

import os
from pathlib import Path


def below():
    """Ids of the processes that this one has started, directly or through others."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    found, new = set(), {os.getpid()}
    while new:
        new = {process for process, parent in parents.items() if parent in new}
        found |= new
    return found


def command_of(process):
    """Command line of a process; empty for one that has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def busy_workers():
    """Ids of the workers of Ray that carry out a task; Ray renames their processes."""
    return [process for process in below() if command_of(process).startswith("ray::_carried_out")]


def listening():
    """Addresses, in hexadecimal as in /proc/net, that processes below this one listen on."""
    inodes = set()
    for process in below():
        for descriptor in Path(f"/proc/{process}/fd").glob("*"):
            try:
                target = os.readlink(descriptor)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return {line[1].rpartition(":")[0] for line in lines if line[3] == "0A" and line[9] in inodes}
