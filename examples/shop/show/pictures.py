"""The picture of the pipelines, as SVG."""

import html

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 128, 44, 44, 22, 24


def depths(inputs):
    """{name: longest way from a source}; `inputs` is {pipeline: [repos]}."""
    found = {}

    def depth(name):
        if name not in found:
            found[name] = 1 + max(map(depth, inputs[name])) if inputs.get(name) else 0
        return found[name]

    for name in inputs:
        depth(name)
    return found


def draw_pipelines(inputs, notes):
    """An SVG text: repos and pipelines from left to right; `notes` is {name: a second line}."""
    columns = {}
    for name, depth in sorted(depths(inputs).items(), key=lambda item: (item[1], item[0])):
        columns.setdefault(depth, []).append(name)
    tallest = max(len(names) for names in columns.values())
    place = {}
    for depth, names in columns.items():
        top = MARGIN + (tallest - len(names)) * (HEIGHT + GAP_Y) / 2
        for i, name in enumerate(names):
            place[name] = (MARGIN + depth * (WIDTH + GAP_X), top + i * (HEIGHT + GAP_Y))
    width = 2 * MARGIN + len(columns) * (WIDTH + GAP_X) - GAP_X
    height = 2 * MARGIN + tallest * (HEIGHT + GAP_Y) - GAP_Y
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for name, repos in inputs.items():
        x2, y2 = place[name][0], place[name][1] + HEIGHT / 2
        for repo in repos:
            x1, y1 = place[repo][0] + WIDTH, place[repo][1] + HEIGHT / 2
            bend = (x1 + x2) / 2
            curve = f"M{x1} {y1} C{bend} {y1} {bend} {y2} {x2} {y2}"
            parts.append(f'<path d="{curve}" fill="none" stroke="#9ab"/>')
    for name, (x, y) in place.items():
        fill = "#e3f0fb" if inputs.get(name) else "#fdf0dc"
        box = f'x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"'
        middle = f'x="{x + WIDTH / 2}" text-anchor="middle"'
        note = html.escape(notes.get(name, ""))
        parts += [
            f'<rect {box} fill="{fill}" stroke="#567"/>',
            f'<text {middle} y="{y + 19}" font-weight="bold">{html.escape(name)}</text>',
            f'<text {middle} y="{y + 35}" font-size="11" fill="#456">{note}</text>',
        ]
    return "\n".join(parts) + "\n</svg>\n"
