"""Seconds over the number of stages, both on logarithmic scales, as an SVG."""

import math
from html import escape

# Told apart also by who sees no colours: each has a mark of its own.
STYLE = {
    "make": ("#6b7280", "square"),
    "snakemake": ("#0e7490", "triangle"),
    "dvc": ("#b45309", "diamond"),
    "pipe": ("#be123c", "circle"),
}
WIDTH, HEIGHT, LEFT, TOP, GAP, BOTTOM = 340, 300, 64, 40, 150, 64
FONT = 'font-family="system-ui, sans-serif" font-size="12"'


def draw(panels):
    """Panels side by side: a title and, for each tool, points of stages and seconds."""
    points = [point for _, lines in panels for line in lines.values() for point in line]
    if not points:
        return None
    across = decades(count for count, _ in points)
    up = decades(seconds for _, seconds in points)
    width = LEFT + len(panels) * WIDTH + (len(panels) - 1) * GAP + 96
    height = TOP + HEIGHT + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" {FONT}>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for number, (title, lines) in enumerate(panels):
        parts += panel(LEFT + number * (WIDTH + GAP), title, lines, across, up)
    return "\n".join([*parts, "</svg>"]) + "\n"


def decades(values):
    """The whole powers of ten around some values."""
    exponents = [math.log10(value) for value in values]
    return math.floor(min(exponents)), max(math.ceil(max(exponents)), math.floor(min(exponents)) + 1)


def panel(left, title, lines, across, up):
    """One set of axes."""
    x = lambda count: left + WIDTH * (math.log10(count) - across[0]) / (across[1] - across[0])
    y = lambda seconds: TOP + HEIGHT * (up[1] - math.log10(seconds)) / (up[1] - up[0])
    middle = left + WIDTH / 2
    parts = [f'<text x="{middle}" y="{TOP - 16}" text-anchor="middle" font-weight="600" fill="#111827">{escape(title)}</text>']
    for power in range(across[0], across[1] + 1):
        parts += grid_line(x(10**power), TOP, x(10**power), TOP + HEIGHT)
        parts.append(label(x(10**power), TOP + HEIGHT + 18, "middle", f"{10**power:,}"))
    for power in range(up[0], up[1] + 1):
        parts += grid_line(left, y(10**power), left + WIDTH, y(10**power))
        parts.append(label(left - 8, y(10**power) + 4, "end", f"{10**power:,} s" if power >= 0 else f"{1000 * 10**power:g} ms"))
    parts.append(label(middle, TOP + HEIGHT + 40, "middle", "stages"))
    ends = []
    for tool, points in lines.items():
        color, mark = STYLE[tool]
        path = " ".join(f"{x(count):.1f},{y(seconds):.1f}" for count, seconds in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [marker(mark, x(count), y(seconds), color) for count, seconds in points]
        ends.append((y(points[-1][1]), x(points[-1][0]), tool, color))
    return parts + names(ends)


def names(ends):
    """The name of each tool at the end of its line, none upon another: above a line that ends before the others."""
    parts, lowest = [], -math.inf
    farthest = max((across for _, across, _, _ in ends), default=0)
    for height, across, tool, color in sorted(ends):
        if across < farthest:
            parts.append(
                f'<text x="{across:.1f}" y="{height - 10:.1f}" text-anchor="middle" fill="{color}" font-weight="600">{tool}</text>'
            )
            continue
        lowest = max(height, lowest + 14)
        parts.append(f'<text x="{across + 10:.1f}" y="{lowest + 4:.1f}" fill="{color}" font-weight="600">{tool}</text>')
    return parts


def grid_line(x1, y1, x2, y2):
    """A line of the grid."""
    return [f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#e5e7eb"/>']


def label(x, y, anchor, text):
    """A text at an axis."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#4b5563">{text}</text>'


def marker(shape, x, y, color):
    """A point."""
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/>'
    corners = {
        "square": [(-4, -4), (4, -4), (4, 4), (-4, 4)],
        "triangle": [(0, -5), (5, 4), (-5, 4)],
        "diamond": [(0, -5), (5, 0), (0, 5), (-5, 0)],
    }[shape]
    path = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{path}" fill="{color}"/>'
