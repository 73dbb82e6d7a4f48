"""The same project for each tool. Every stage does `(echo STAGE; head -c 64 IN) > OUT`."""

import hashlib
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

# Stages in a row, in a project that is several chains side by side.
DEPTH = 10


@dataclass(frozen=True)
class Stage:
    """A stage: its name, its input, and its output, as paths in the project."""

    name: str
    source: str
    target: str
    # The stage that makes the input.
    maker: str = None

    def command(self, source=None, target=None):
        """What its shell runs."""
        return f"(echo {self.name}; head -c 64 {source or self.source}) > {target or self.target}"


def chains(count, depth):
    """`count` stages in chains of `depth`, level by level; and the sources that they start from."""
    width = max(1, count // depth)
    stages = []
    for level in range(min(depth, count)):
        for k in range(width):
            maker = None if level == 0 else f"s{level - 1}_{k}"
            source = f"src/in{k}.txt" if level == 0 else f"out/{maker}.txt"
            stages.append(Stage(f"s{level}_{k}", source, f"out/s{level}_{k}.txt", maker))
    return stages, [f"src/in{k}.txt" for k in range(width)]


class Project:
    """A folder with sources and the file in which one tool describes the stages."""

    def __init__(self, bench, name, tool):
        self.bench = bench
        self.tool = tool
        self.folder = bench.work / f"{name}-{tool}"
        self.edits = 0
        bench.put_aside(self.folder)
        (self.folder / "out").mkdir(parents=True)

    def write(self, path, text):
        """Writes a file of the project."""
        path = self.folder / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def describe(self, stages, whole_inputs=()):
        """Writes the description. `whole_inputs`: file and folder inputs with the text that lists them for Snakemake and
        make, where that is not the path itself."""
        writer = {"make": makefile, "snakemake": snakefile, "dvc": dvc_yaml, "pipe": pipeline_yaml}[self.tool]
        name, text = writer(stages, dict(whole_inputs))
        self.write(name, text)
        if self.tool == "dvc":
            dvc = self.bench.tools.dvc
            self.bench.call(["git", "init", "-q"], self.folder)
            self.bench.call([dvc, "init", "-q"], self.folder)
            self.bench.call([dvc, "config", "core.check_update", "false"], self.folder)
            self.write(".gitignore", "/out\n/src\n")
        if self.tool == "pipe":
            # Else the home would be that of the repository around the work folder.
            (self.folder / ".pipe").mkdir()

    def run(self):
        """Brings it up to date, before anything is measured."""
        self.bench.call(self.bench.tools.run(self.tool, quiet=True), self.folder)

    def forget(self, remove=None):
        """Takes back what runs left: the next run is a first run. `remove`: how."""
        remove = remove or self.bench.put_aside
        state = {"make": [], "snakemake": [".snakemake"], "dvc": [".dvc/cache", ".dvc/tmp"], "pipe": [".pipe"]}
        for folder in ["out", *state[self.tool]]:
            remove(self.folder / folder)
        (self.folder / "out").mkdir()
        if self.tool == "dvc":
            (self.folder / "dvc.lock").unlink(missing_ok=True)
            remove(Path(self.bench.environment["DVC_SITE_CACHE_DIR"]))
        if self.tool == "pipe":
            (self.folder / ".pipe").mkdir()
        # What the run before has written is on disk before the clock starts.
        os.sync()

    def edit(self, path):
        """Changes a source to something that it never was."""
        self.edits += 1
        self.write(path, f"edit {self.edits} of {os.urandom(8).hex()}\n")


def graph(bench, name, tool, count, depth):
    """A project of `count` stages in chains of `depth`."""
    project = Project(bench, name, tool)
    stages, sources = chains(count, depth)
    for k, source in enumerate(sources):
        project.write(source, f"source {k}\n")
    project.describe(stages)
    project.stages = stages
    return project


def large_file(bench, name, tool, mebibytes):
    """One stage with one large input, of which no two blocks are alike."""
    project = Project(bench, name, tool)
    block = random.Random(1).randbytes(1 << 20)
    (project.folder / "src").mkdir()
    with open(project.folder / "src/large.bin", "wb") as file:
        for k in range(mebibytes):
            file.write(k.to_bytes(8, "little") + block[8:])
    project.describe([Stage("one", "src/large.bin", "out/one.txt")])
    return project


def many_files(bench, name, tool, count):
    """One stage with a folder of small files as its input."""
    project = Project(bench, name, tool)
    content = random.Random(2)
    for k in range(count):
        folder = project.folder / f"src/data/d{k // 100:03}"
        if k % 100 == 0:
            folder.mkdir(parents=True)
        (folder / f"f{k % 100:02}.txt").write_bytes(f"{k}\n".encode() + content.randbytes(1000))
    listings = {
        "make": "$(shell find src/data -type f)",
        "snakemake": "sorted(str(path) for path in __import__('pathlib').Path('src/data').rglob('*.txt'))",
    }
    stage = CountFiles("one", "src/data", "out/one.txt")
    project.describe([stage], {"src/data": listings[tool]} if tool in listings else {})
    return project


class CountFiles(Stage):
    """A stage whose input is a folder: it counts the files."""

    def command(self, source=None, target=None):
        return f"(echo {self.name}; find -L {source or self.source} -type f | wc -l) > {target or self.target}"


def makefile(stages, listed):
    """The stages as a Makefile."""
    lines = [".DELETE_ON_ERROR:", "all: " + " ".join(sinks(stages)), ""]
    for stage in stages:
        lines += [f"{stage.target}: {listed.get(stage.source, stage.source)}", f"\t@{stage.command()}", ""]
    return "Makefile", "\n".join(lines)


def snakefile(stages, listed):
    """The stages as a Snakefile, a rule each."""
    lines = ["rule all:", f"    input: {', '.join(map(repr, sinks(stages)))}", ""]
    for stage in stages:
        lines += [
            f"rule {stage.name}:",
            f"    input: {listed.get(stage.source, repr(stage.source))}",
            f"    output: {stage.target!r}",
            f"    shell: {stage.command()!r}",
            "",
        ]
    return "Snakefile", "\n".join(lines)


def dvc_yaml(stages, _listed):
    """The stages as a dvc.yaml."""
    lines = ["stages:"]
    for stage in stages:
        lines += [f"  {stage.name}:", f"    cmd: {stage.command()}", "    deps:", f"    - {stage.source}"]
        lines += ["    outs:", f"    - {stage.target}"]
    return "dvc.yaml", "\n".join(lines) + "\n"


def pipeline_yaml(stages, _listed):
    """The stages as a pipeline of `pipe`. An input stands as `in` in the folder in which the command runs."""
    lines = ["stages:"]
    for stage in stages:
        source = stage.maker or f'"file://{stage.source}"'
        run = stage.command("in", "out.txt")
        lines.append(
            f"  {stage.name}: {{ kind: command, inputs: {{ in: {source} }}, "
            f'with: {{ run: "{run}", outputs: [out.txt] }} }}'
        )
    return "pipeline.yaml", "\n".join(lines) + "\n"


def sinks(stages):
    """The outputs that no stage takes."""
    taken = {stage.source for stage in stages}
    return [stage.target for stage in stages if stage.target not in taken]


def seed(project):
    """Puts a project into the state that a first run leaves, without that run. Outputs and, for DVC, its lock file and
    cache are written as the tool itself writes them: the peers need from minutes to hours for a first run of many stages.
    """
    content, moment = {}, os.stat(project.folder / "src").st_mtime_ns
    for number, stage in enumerate(project.stages):
        before = content.get(stage.source) or (project.folder / stage.source).read_bytes()
        content[stage.source] = before
        content[stage.target] = f"{stage.name}\n".encode() + before[:64]
        target = project.folder / stage.target
        target.write_bytes(content[stage.target])
        # Each output is newer than its input, also for who looks at whole microseconds.
        os.utime(target, ns=(moment + number * 1000, moment + number * 1000))
    if project.tool == "dvc":
        seed_dvc(project, content)


def seed_dvc(project, content):
    """DVC's lock file and cache for outputs that are there."""
    lines = ["schema: '2.0'", "stages:"]
    for stage in project.stages:
        lines += [f"  {stage.name}:", f"    cmd: {stage.command()}"]
        for title, path in [("deps", stage.source), ("outs", stage.target)]:
            digest = hashlib.md5(content[path]).hexdigest()
            lines += [f"    {title}:", f"    - path: {path}", "      hash: md5", f"      md5: {digest}"]
            lines += [f"      size: {len(content[path])}"]
        cached = project.folder / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
        cached.parent.mkdir(parents=True, exist_ok=True)
        if not cached.exists():
            cached.write_bytes(content[stage.target])
            cached.chmod(0o444)
    project.write("dvc.lock", "\n".join(lines) + "\n")


def same_outputs(projects):
    """Whether the last stage of each project has made the same bytes; says which has not."""
    made = {project.tool: output_of(project) for project in projects}
    return sorted(tool for tool, text in made.items() if text != made[projects[0].tool])


def output_of(project):
    """The bytes of the last stage's output."""
    stage = project.stages[-1]
    if project.tool != "pipe":
        return (project.folder / stage.target).read_bytes()
    place = project.bench.work / "got"
    shutil.rmtree(place, ignore_errors=True)
    place.unlink(missing_ok=True)
    project.bench.call([project.bench.tools.pipe, "get", stage.name, place], project.folder)
    files = [path for path in Path(place).rglob("*") if path.is_file()] if place.is_dir() else [place]
    return files[0].read_bytes()
