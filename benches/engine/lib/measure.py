"""Times whole processes. The programs of a case take turns, so that all of them meet the same moments."""

import os
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from . import machine

# A run during which other processes used more than this many cores is taken again.
NOISE_CORES = 0.3

# In front of what lies in the repository.
REPOSITORY = f"{Path(__file__).resolve().parents[3]}/"

GNU_TIME = shutil.which("time", path="/usr/bin:/bin")


class Wrong(Exception):
    """A program that was measured did something else than it was meant to do."""


@dataclass
class Subject:
    """A command of one tool, to be measured."""

    tool: str
    command: list
    folder: Path
    # Called before each run, outside the time that is taken.
    before: Callable = None
    runs: int = None
    # What its output must hold, or a function that says what is wrong with the output.
    expect: object = None
    # Exit codes that are right.
    codes: tuple = (0,)
    note: str = ""
    # Kill it after so many seconds: the result is then that it took longer.
    limit_seconds: float = 1800


@dataclass
class Sample:
    """One run."""

    wall: float
    user: float
    system: float
    # Cores that other processes used meanwhile.
    others: float


@dataclass
class Result:
    """All runs of a subject."""

    subject: Subject
    samples: list = field(default_factory=list)
    memory_mib: float = None
    failure: str = None

    def quiet(self):
        """The runs that nothing else disturbed; all of them, if those are too few to tell anything."""
        quiet = [sample for sample in self.samples if sample.others < NOISE_CORES]
        return quiet if len(quiet) >= min(3, self.subject.runs) else self.samples

    def as_json(self):
        """What is kept of it: seconds, MiB, cores."""
        program, *arguments = self.subject.command
        # Where the repository lay says nothing.
        arguments = [str(argument).replace(REPOSITORY, "") for argument in arguments]
        kept = {"tool": self.subject.tool, "command": [Path(program).name, *arguments]}
        if self.failure:
            return kept | {"failure": self.failure}
        used = self.quiet()
        walls = [sample.wall for sample in used]
        median = lambda values: round(statistics.median(values), 5)
        kept |= {
            "runs": len(used),
            "wall": median(walls),
            "least": round(min(walls), 5),
            "most": round(max(walls), 5),
            "user": median(sample.user for sample in used),
            "system": median(sample.system for sample in used),
            "memory_mib": self.memory_mib,
            "others": median(sample.others for sample in used),
        }
        return kept | ({"note": self.subject.note} if self.subject.note else {})


class Bench:
    """Measures cases and remembers what came out."""

    def __init__(self, work, tools, runs, only, patience_seconds):
        self.work = work
        self.tools = tools
        self.runs = runs
        self.only = only
        self.patience_seconds = patience_seconds
        self.cases = {}
        self.aside = work / "aside"
        home = work / "home"
        home.mkdir(parents=True, exist_ok=True)
        self.environment = {
            "PATH": os.pathsep.join([*tools.folders(), os.environ["PATH"]]),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "DVC_NO_ANALYTICS": "1",
            # DVC keeps an index outside the project: here it stays in the work folder.
            "DVC_SITE_CACHE_DIR": str(work / "dvc-site-cache"),
        }

    def put_aside(self, path):
        """Takes a file or folder away without removing it. Many file systems are slow for a while after many files were
        removed: ext4 looks at each inode that was freed within the last minutes before it makes a new file, and tells
        the disk of the freed blocks. That time would be counted against the run that comes next."""
        if path.exists():
            self.aside.mkdir(exist_ok=True)
            path.rename(Path(tempfile.mkdtemp(dir=self.aside)) / path.name)

    def remove(self, path):
        """Removes a folder of few files."""
        shutil.rmtree(path, ignore_errors=True)

    def wants(self, name):
        """Whether a case is to be measured."""
        return not self.only or any(part in name for part in self.only)

    def measure(self, name, title, subjects):
        """Measures the subjects of a case in turn."""
        subjects = [subject for subject in subjects if subject.tool in self.tools.chosen and subject.runs != 0]
        if not subjects or not self.wants(name):
            return
        say(f"{name}: {title}")
        results = []
        for subject in subjects:
            subject.runs = subject.runs or self.runs
            results.append(Result(subject))
        self._warm_up(results)
        turns = 0
        while open_results := [result for result in results if self._needs_more(result)]:
            # Whoever comes first meets the caches as the last one left them: everyone comes first in turn.
            shift = turns % len(open_results)
            for result in open_results[shift:] + open_results[:shift]:
                self._take(result)
            turns += 1
        for result in results:
            if not result.failure and "no-op" in name:
                result.memory_mib = self._memory(result.subject)
            say(f"  {line(result)}")
        self.cases[name] = {"title": title, "results": [result.as_json() for result in results]}

    def _needs_more(self, result):
        if result.failure:
            return False
        quiet = sum(sample.others < NOISE_CORES for sample in result.samples)
        # Not for ever: on a machine that never rests, the noise is reported.
        slow = sum(sample.wall for sample in result.samples) > 120
        return quiet < result.subject.runs and len(result.samples) < result.subject.runs * (1 if slow else 3)

    def _warm_up(self, results):
        for result in results:
            # What runs but once is long, and warms itself up.
            if result.subject.runs > 1:
                self._take(result)
                result.samples.clear()

    def _take(self, result):
        try:
            result.samples.append(self._timed(result.subject))
        except Wrong as error:
            result.failure = str(error)

    def _timed(self, subject):
        if subject.before:
            subject.before()
        before = machine.wait_until_quiet(self.patience_seconds, NOISE_CORES)
        output = self.work / "output.log"
        with open(output, "wb") as log:
            busy, start = machine.busy_seconds(), time.perf_counter()
            process = subprocess.Popen(
                subject.command,
                cwd=subject.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                close_fds=False,
                start_new_session=True,
            )
            usage = wait(process, subject.limit_seconds)
            wall = time.perf_counter() - start
            busy = machine.busy_seconds() - busy
        self._check(subject, process.returncode, output)
        own = usage.ru_utime + usage.ru_stime
        # The kernel counts in ticks of 10 ms: what is shorter than some of them is judged by the moment before.
        others = max(0.0, busy - own) / wall if wall > 0.3 else before
        return Sample(wall, usage.ru_utime, usage.ru_stime, others)

    def _check(self, subject, code, output):
        text = output.read_text(errors="replace")
        last = text.strip().rsplit("\n", 1)[-1][:200]
        if code < 0:
            raise Wrong(f"killed by signal {-code} (after {subject.limit_seconds:g} s, if that is 9)")
        if code not in subject.codes:
            raise Wrong(f"exit code {code}: {last}")
        if isinstance(subject.expect, str) and subject.expect not in text:
            raise Wrong(f"the output lacks `{subject.expect}`: {last}")

    def _memory(self, subject):
        """The largest resident set of the process, in MiB. The parent's own is counted in what `wait4` says of a
        child, and a Python is larger than what is measured here, so GNU time stands in between."""
        if not GNU_TIME or subject.runs < 2:
            return None
        if subject.before:
            subject.before()
        report = self.work / "memory"
        subprocess.run(
            [GNU_TIME, "-q", "-f", "%M", "-o", report, *subject.command],
            cwd=subject.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return round(int(report.read_text().split()[-1]) / 1024, 1)

    def call(self, command, folder):
        """Runs a step of preparation that must succeed."""
        done = subprocess.run(
            command, cwd=folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Wrong(f"`{' '.join(map(str, command))}` in {folder} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout


def wait(process, limit_seconds):
    """Waits for a process, and gives what it used. At the limit, and when this program is ended, it goes with all that
    it started."""
    descriptor = os.pidfd_open(process.pid)
    ended = False
    try:
        ended, _, _ = select.select([descriptor], [], [], limit_seconds)
    finally:
        os.close(descriptor)
        if not ended:
            os.killpg(process.pid, signal.SIGKILL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage


def line(result):
    """A result for whoever watches."""
    kept = result.as_json()
    if "failure" in kept:
        return f"{kept['tool']:10} failed: {kept['failure']}"
    memory = f"{kept['memory_mib']:7.1f} MiB" if kept["memory_mib"] else ""
    return (
        f"{kept['tool']:10} {kept['wall']:9.4f} s  ({kept['least']:.4f} to {kept['most']:.4f}, {kept['runs']} runs)"
        f"  user {kept['user']:.3f} system {kept['system']:.3f} others {kept['others']:.2f} {memory}"
    )


def say(text):
    """Tells whoever watches."""
    print(text, file=sys.stderr, flush=True)
