"""The results as a table in Markdown."""

from . import plot
from .cases import QUOTED, SIZES
from .tools import NAMES

# What `pipe` is held to: seconds, and MiB.
LIMITS = {
    "version": 0.003,
    "no-op-6": 0.010,
    "no-op-100": 0.015,
    "no-op-1000": 0.050,
    "first-1000": 5.0,
    "edit-1000": 0.15,
    "chain-10000-new": 0.5,
    "chain-10000-done": 0.5,
    "chain-10000-edited": 0.5,
    "many-no-op": 0.100,
    "many-edited": 0.120,
}
# A new input is hashed in at most so many times what b3sum takes.
LIMIT_OF_B3SUM = 1.15
LIMIT_MEMORY_MIB = 30

BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def limit_of(name, results):
    """What `pipe` may take for a case, in seconds; `None` if nothing is said about it."""
    if name == "large-hash" and "wall" in results.get("b3sum", {}):
        return results["b3sum"]["wall"] * LIMIT_OF_B3SUM
    return LIMITS.get(name)


def markdown(cases, facts):
    """Tables of times, limits and memory."""
    lines = [*header(facts), "", "| case | limit | " + " | ".join(NAMES) + " | floor |", "|---|" + "---:|" * (len(NAMES) + 2)]
    for name, case in cases.items():
        results = {result["tool"]: result for result in case["results"]}
        limit = limit_of(name, results)
        cells = [shown(name, tool, results.get(tool), limit) for tool in NAMES]
        floors = [f"{tool} {seconds(results[tool]['wall'])}" for tool in ("b3sum", "cat", "find") if tool in results]
        lines.append(f"| {case['title']} | {seconds(limit) if limit else ''} | {' | '.join(cells)} | {', '.join(floors)} |")
    lines += ["", *memory(cases), "", *footnotes(cases)]
    return "\n".join(lines) + "\n"


def header(facts):
    """What the numbers were taken on."""
    programs = "; ".join(f"{name}: {said}" for name, said in facts["programs"].items())
    return [
        f"{facts['date']}, {facts['cores']} cores of {facts['processor']}, {facts['memory_gib']} GiB, {facts['kernel']}, "
        f"{facts['file_system']} (a block is kept in {facts['fsync_ms']} ms). {programs}.",
        "",
        "Wall seconds of whole processes: the median, and below it user and system seconds, and how many runs it is of if "
        "those are fewer than ten.",
    ]


def shown(name, tool, result, limit):
    """A cell: the time, what the processor did, and for `pipe` whether it is within the limit."""
    if result is None:
        quoted = QUOTED.get((name, tool))
        return f"({seconds(quoted)})" if quoted else ""
    if "failure" in result:
        return "fails"
    text = seconds(result["wall"])
    if tool == "pipe" and limit:
        text = f"**{text}**" if result["wall"] <= limit else f"{text} (over)"
    noisy = "" if result["others"] < 0.3 else "?"
    few = f", {plural(result['runs'], 'run')}" if result["runs"] < 10 else ""
    return f"{text}{noisy}<br><sub>{result['user']:.2f} + {result['system']:.2f}{few}</sub>"


def memory(cases):
    """The largest resident set in no-op runs."""
    lines = ["| largest resident set of a no-op run, MiB | " + " | ".join(NAMES) + " |", "|---|" + "---:|" * len(NAMES)]
    for name, case in cases.items():
        results = {result["tool"]: result.get("memory_mib") for result in case["results"]}
        if "no-op" in name and any(results.values()):
            cells = [f"{results[tool]:.0f}" if results.get(tool) else "" for tool in NAMES]
            lines.append(f"| {case['title'].removeprefix('no-op run').strip(', ')} | {' | '.join(cells)} |")
    return lines


def footnotes(cases):
    """What the cells do not say."""
    lines = [
        "In parentheses: quoted from an earlier run on such a machine. `?`: other processes used more than 0.3 cores meanwhile."
    ]
    for case in cases.values():
        for result in case["results"]:
            if failure := result.get("failure"):
                lines.append(f"- {case['title']}, {result['tool']}: {failure}")
            elif note := result.get("note"):
                lines.append(f"- {case['title']}, {result['tool']}: {note}")
    return [lines[0], "", *lines[1:]] if len(lines) > 1 else lines


def plural(count, word):
    """A number of things."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def seconds(value):
    """Seconds with three digits that count."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.4f}" if value < 0.01 else f"{value:.3f}"


def scaling(cases, action):
    """Seconds by number of stages, for each tool."""
    lines = {}
    for count in SIZES:
        for result in cases.get(f"{action}-{count}", {"results": []})["results"]:
            if "wall" in result:
                lines.setdefault(result["tool"], []).append((count, result["wall"]))
        for tool in NAMES:
            if (quoted := QUOTED.get((f"{action}-{count}", tool))) and f"{action}-{count}" in cases:
                lines.setdefault(tool, []).append((count, quoted))
    return {tool: lines[tool] for tool in NAMES if tool in lines}


def picture(cases):
    """The scaling as an SVG."""
    return plot.draw([("no-op run", scaling(cases, "no-op")), ("first run", scaling(cases, "first"))])


def put_into(readme, text):
    """Replaces what stands between the marks."""
    before, rest = readme.split(BEGIN, 1)
    return f"{before}{BEGIN}\n{text}{END}{rest.split(END, 1)[1]}"
