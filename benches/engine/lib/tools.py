"""The programs that are compared: where they are, and how each does the same thing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from . import machine
from .measure import say

DVC = "3.67.1"
SNAKEMAKE = "9.27.1"
B3SUM = "1.8.7"

NAMES = ["make", "snakemake", "dvc", "pipe"]


class Tools:
    """Paths of the programs. A variable in capitals (`DVC=/path/to/dvc`) names one that is there already."""

    def __init__(self, root, chosen):
        self.chosen = set(chosen) | {"b3sum", "find", "cat"}
        self.root = root
        self.peers = root / "target" / "bench" / "peers"
        self.make = os.environ.get("MAKE_PROGRAM") or shutil.which("make") or sys.exit("make is not installed")
        self.pipe = os.environ.get("PIPE") or str(root / "target" / "release" / "pipe")
        self.dvc = os.environ.get("DVC") or str(self.peers / "dvc" / "bin" / "dvc")
        self.snakemake = os.environ.get("SNAKEMAKE") or str(self.peers / "snakemake" / "bin" / "snakemake")
        self.b3sum = os.environ.get("B3SUM") or str(self.peers / "b3sum" / "bin" / "b3sum")

    def install(self):
        """Fetches what is chosen and missing: DVC and Snakemake from PyPI, b3sum from crates.io."""
        if not Path(self.pipe).exists():
            sys.exit(f"{self.pipe} is missing: cargo build --locked --release -p pipe")
        for name, package in [("dvc", f"dvc=={DVC}"), ("snakemake", f"snakemake=={SNAKEMAKE}")]:
            if name in self.chosen and not Path(getattr(self, name)).exists():
                say(f"installing {package}")
                folder = self.peers / name
                subprocess.run([sys.executable, "-m", "venv", folder], check=True)
                subprocess.run([folder / "bin" / "pip", "install", "-q", package], check=True)
        if not Path(self.b3sum).exists():
            say(f"building b3sum {B3SUM}")
            folder = self.peers / "b3sum"
            build = ["cargo", "install", "-q", "b3sum", "--version", B3SUM, "--root", folder]
            subprocess.run([*build, "--target-dir", folder / "build"], check=True, cwd=self.peers)

    def folders(self):
        """Folders that must be found before others: DVC starts programs of its own environment."""
        return [str(Path(self.dvc).parent)]

    def programs(self):
        """The programs by name."""
        names = [name for name in NAMES if name in self.chosen] + ["b3sum"]
        return {name: [getattr(self, name)] for name in names}

    def run(self, tool, quiet=False):
        """Brings a project up to date with as many jobs at a time as there are cores. `quiet` is for first runs, where
        the peers would spend their time on printing."""
        cores = machine.CORES
        return {
            "make": [self.make, f"-j{cores}"],
            "snakemake": [self.snakemake, f"-c{cores}", *(["-q", "all"] if quiet else [])],
            # DVC runs one stage at a time.
            "dvc": [self.dvc, "repro", *(["-q"] if quiet else [])],
            "pipe": [self.pipe, "run", "pipeline.yaml", "--jobs", str(cores)],
        }[tool]

    def plan(self, tool):
        """Says what a run would do, without doing it."""
        return {
            "make": [self.make, "-n"],
            "snakemake": [self.snakemake, "-n"],
            "dvc": [self.dvc, "status"],
            "pipe": [self.pipe, "plan", "pipeline.yaml"],
        }[tool]
