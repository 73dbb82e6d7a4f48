"""The cases: what is done to which project, and how often."""

import os

from . import projects
from .measure import Subject, Wrong, say
from .projects import graph, large_file, many_files, same_outputs, seed
from .tools import NAMES

# From this many stages on, the peers' projects are put into their finished state without the first run.
SEEDED = {"snakemake": 10_000, "dvc": 1000}
# What is too slow to be done ten times, by tool and number of stages; 0: not at all. All suites take 20 minutes so.
RUNS = {
    ("first", "snakemake", 1): 5,
    ("first", "dvc", 1): 5,
    ("first", "snakemake", 10): 5,
    ("first", "dvc", 10): 5,
    ("first", "snakemake", 100): 5,
    ("first", "dvc", 100): 1,
    ("first", "snakemake", 1000): 1,
    ("first", "make", 10_000): 1,
    ("first", "pipe", 10_000): 1,
    ("no-op", "snakemake", 1): 5,
    ("no-op", "dvc", 1): 5,
    ("no-op", "snakemake", 10): 5,
    ("no-op", "dvc", 10): 5,
    ("no-op", "dvc", 1000): 3,
    ("no-op", "make", 10_000): 3,
    ("no-op", "snakemake", 10_000): 1,
    ("no-op", "dvc", 10_000): 0,
    ("edit", "snakemake", 100): 3,
    ("edit", "dvc", 100): 3,
    ("edit", "snakemake", 1000): 3,
    ("edit", "dvc", 1000): 1,
}
# The same for an input of 2 GiB and one of 20,000 files.
LARGE_RUNS = 3
MANY_RUNS = {"make": 3, "snakemake": 5}
# DVC's first run of 1000 stages, once on a machine like this: 27 minutes are not spent again.
QUOTED = {("first-1000", "dvc"): 1604.0}

SIZES = [1, 6, 10, 100, 1000, 10_000]


def suites():
    """The suites by name, in the order in which they are run."""
    named = {"version": version}
    for count in SIZES:
        named[f"stages-{count}"] = lambda bench, count=count: stages(bench, count)
    return named | {"chain-10000": long_chain, "large-file": one_large_file, "many-files": a_folder_of_files}


def version(bench):
    """Start-up."""
    commands = bench.tools.programs()
    subjects = [Subject(tool, [*commands[tool], "--version"], bench.work) for tool in NAMES if tool in commands]
    bench.measure("version", "`--version`", subjects)


def stages(bench, count):
    """First run, no-op run, and one edit: six stages in a row, else chains of ten side by side."""
    depth = count if count < projects.DEPTH else projects.DEPTH
    chosen = [tool for tool in NAMES if tool in bench.tools.chosen and RUNS.get(("no-op", tool, count)) != 0]
    made = [graph(bench, f"stages{count}", tool, count, depth) for tool in chosen]
    runs = lambda action, project: RUNS.get((action, project.tool, count))
    seeded = [project for project in made if count >= SEEDED.get(project.tool, count + 1)]
    first = [project for project in made if project not in seeded]
    bench.measure(
        f"first-{count}",
        f"first run of {count} `command` stages" if count > 1 else "first run of one `command` stage",
        [
            Subject(
                project.tool,
                bench.tools.run(project.tool, quiet=True),
                project.folder,
                before=project.forget,
                runs=runs("first", project),
            )
            for project in first
        ],
    )
    for project in made:
        # Twice: Snakemake and DVC write some of their state in the run after the first.
        seed(project) if project in seeded else project.run()
    if wrong := same_outputs(made):
        raise Wrong(f"the outputs of {', '.join(wrong)} are not those of {made[0].tool}")
    up_to_date = {"snakemake": "Nothing to be done", "dvc": "up to date", "pipe": "up to date"}
    bench.measure(
        f"no-op-{count}",
        f"no-op run, {count} stages" if count > 1 else "no-op run, one stage",
        [
            Subject(
                project.tool,
                bench.tools.run(project.tool),
                project.folder,
                runs=runs("no-op", project),
                expect=up_to_date.get(project.tool),
                limit_seconds=900,
                note="outputs, and DVC's lock and cache, put there by the bench" if project in seeded else "",
            )
            for project in made
        ],
    )
    if count in (100, 1000):
        bench.measure(
            f"edit-{count}",
            f"one edit in {count} stages, ten to rerun",
            [
                Subject(
                    project.tool,
                    bench.tools.run(project.tool),
                    project.folder,
                    before=lambda project=project: project.edit("src/in0.txt"),
                    runs=runs("edit", project),
                )
                for project in made
            ],
        )
    if count == 100 and "dvc" in bench.tools.chosen:
        check_seed(bench)
    put_aside(made)


def check_seed(bench):
    """The state that the bench writes for DVC is, byte for byte, the one that DVC writes."""
    ran, seeded = (graph(bench, f"seed-{name}", "dvc", 100, projects.DEPTH) for name in ("ran", "written"))
    ran.run()
    seed(seeded)
    lock = [(project.folder / "dvc.lock").read_text() for project in (ran, seeded)]
    cache = [sorted(path.name for path in (project.folder / ".dvc/cache/files").rglob("*")) for project in (ran, seeded)]
    if lock[0] != lock[1] or cache[0] != cache[1]:
        raise Wrong("the lock and cache that the bench writes for DVC are not those of DVC itself")
    say("  the lock and cache that the bench writes for DVC are those of DVC itself")
    put_aside([ran, seeded])


def long_chain(bench):
    """10,000 stages, each taking from the one before."""
    count = 10_000
    chosen = [tool for tool in ("make", "snakemake", "pipe") if tool in bench.tools.chosen]
    made = [graph(bench, f"chain{count}", tool, count, count) for tool in chosen]
    # Snakemake fails here; that it fails is the result.
    few = {"snakemake": 1}
    plans = lambda: [
        Subject(project.tool, bench.tools.plan(project.tool), project.folder, runs=few.get(project.tool), limit_seconds=300)
        for project in made
    ]
    bench.measure("chain-10000-new", "a chain of 10,000 stages that never ran: plan", plans())
    for project in made:
        if project.tool == "make":
            seed(project)
        elif project.tool == "pipe" and any(bench.wants(f"chain-10000-{state}") for state in ("done", "edited")):
            project.run()
    all_made, made = made, [project for project in made if project.tool != "snakemake"]
    bench.measure("chain-10000-done", "a chain of 10,000 stages that is up to date: plan", plans())
    for project in made:
        project.edit("src/in0.txt")
    bench.measure("chain-10000-edited", "a chain of 10,000 stages, its first input changed: plan", plans())
    put_aside(all_made)


def put_aside(projects):
    """Takes away what is not needed any more."""
    for project in projects:
        project.bench.put_aside(project.folder)


def one_large_file(bench, mebibytes=2048):
    """A stage with an input of 2 GiB."""
    made = [large_file(bench, "large", tool, mebibytes) for tool in NAMES if tool in bench.tools.chosen]
    path = made[-1].folder / "src/large.bin"

    def forget(project):
        """These are few files, and too large to be kept."""
        return lambda: project.forget(remove=bench.remove)

    hashing = [
        Subject("b3sum", [bench.tools.b3sum, path], bench.work),
        Subject("cat", ["sh", "-c", f"cat {path} > /dev/null"], bench.work),
    ]
    for project in made:
        if project.tool == "pipe":
            hashing.append(Subject("pipe", bench.tools.plan("pipe"), project.folder, before=forget(project)))
    bench.measure("large-hash", "a new input of 2 GiB: to hash it (`pipe plan`)", hashing)
    first = [
        Subject(project.tool, bench.tools.run(project.tool, quiet=True), project.folder, before=forget(project), runs=LARGE_RUNS)
        for project in made
    ]
    bench.measure("large-new", "first run of a stage with an input of 2 GiB", first)
    for project in made:
        project.run()
    touched = [
        Subject(
            project.tool,
            bench.tools.run(project.tool),
            project.folder,
            before=lambda project=project: os.utime(project.folder / "src/large.bin"),
            runs=LARGE_RUNS,
        )
        for project in made
    ]
    bench.measure("large-touched", "run after the 2 GiB input was touched, its bytes the same", touched)
    noop = [Subject(project.tool, bench.tools.run(project.tool), project.folder) for project in made]
    bench.measure("large-no-op", "no-op run with an input of 2 GiB", noop)
    for project in made:
        bench.remove(project.folder)


def a_folder_of_files(bench, count=20_000):
    """A stage with an input of 20,000 small files."""
    made = [many_files(bench, "many", tool, count) for tool in NAMES if tool in bench.tools.chosen]
    for project in made:
        project.run()
    walk = ["find", "src/data", "-type", "f", "-printf", "%T@ %s %i %p\n"]
    floor = [Subject("find", walk, made[-1].folder, note="looks at every file: the floor")]
    few = lambda project: MANY_RUNS.get(project.tool)
    noop = [Subject(project.tool, bench.tools.run(project.tool), project.folder, runs=few(project)) for project in made]
    bench.measure("many-no-op", "no-op run with an input of 20,000 files", floor + noop)
    edited = "src/data/d100/f50.txt"
    # What a tool is asked to find out what changed. Only pipe can be expected to name the file.
    status = [
        Subject(
            project.tool,
            bench.tools.plan(project.tool),
            project.folder,
            before=lambda project=project: project.edit(edited),
            runs=few(project),
            expect="d100/f50.txt" if project.tool == "pipe" else None,
            note="" if project.tool == "pipe" else "sees a change, does not name the file",
        )
        for project in made
    ]
    bench.measure("many-edited", "one file of 20,000 changed: to find out, and name it", status)
    put_aside(made)
