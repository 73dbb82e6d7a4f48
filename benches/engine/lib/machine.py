"""What the numbers were taken on, and what else the machine was doing."""

import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

CORES = os.cpu_count() or 1
TICKS = os.sysconf("SC_CLK_TCK")


def busy_seconds():
    """CPU seconds that all processes together have used since the machine started."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / TICKS


def wait_until_quiet(most_seconds, busy_cores):
    """Waits until less than `busy_cores` cores are in use, but no longer than `most_seconds`; says how many are."""
    end = time.monotonic() + most_seconds
    while True:
        used, start = busy_seconds(), time.monotonic()
        time.sleep(0.25)
        cores = (busy_seconds() - used) / (time.monotonic() - start)
        if cores < busy_cores or time.monotonic() >= end:
            return cores


def facts(folder, programs):
    """The machine, the file system of `folder`, and the first line of each program's `--version`."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": processor(),
        "cores": CORES,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": f"{platform.system()} {platform.release()}",
        "file_system": file_system(folder),
        "fsync_ms": fsync_ms(folder),
        "python": platform.python_version(),
        "programs": {name: version(command) for name, command in programs.items()},
    }


def processor():
    """The processor's name, or its architecture where the kernel does not tell."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def file_system(folder):
    """The type of the file system that holds `folder`."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _device, point, this, *_ = line.split()
        inside = point == "/" or f"{folder}/".startswith(f"{point}/")
        if inside and len(point) >= len(best):
            best, kind = point, this
    return kind


def fsync_ms(folder):
    """How long the disk takes to keep a new block: the median of 30, in milliseconds."""
    path, times = Path(folder) / "fsync-probe", []
    with open(path, "wb") as file:
        for _ in range(30):
            file.write(os.urandom(4096))
            file.flush()
            start = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - start)
    path.unlink()
    return round(statistics.median(times) * 1000, 2)


def version(command):
    """The first line that a program says of itself."""
    try:
        said = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"cannot be run: {error}"
    return (said.stdout or said.stderr).strip().split("\n", 1)[0]
