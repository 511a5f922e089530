#!/usr/bin/env python3
"""A flame graph (SVG) from what `perf script` prints.

    perf record -F 499 --call-graph dwarf,32768 -p PID -- sleep 5
    perf script --no-inline -F comm,ip,sym | scripts/flame.py --title "append" > append.svg

Width is the share of samples; a frame stands on its caller; hover over one for its name and share.
"""

import argparse
import html
import re
import sys

WIDTH, ROW, TEXT = 1200, 16, 11
# Frames of the runtime that stand under everything and say nothing.
NOISE = re.compile(
    r"^(clone3?|start_thread|__rust_begin_short|std::(sys|panic|rt|thread)|core::ops::function"
    r"|tokio::runtime|<tokio::runtime|tokio::loom|\[unknown\])"
)
# What is whose.
COLOURS = [
    (re.compile(r"^anabranch|<anabranch"), "#e8743b"),
    (re.compile(r"openraft"), "#b06fc4"),
    (re.compile(r"h2::|hyper|tonic|prost|axum|tower|http"), "#5899da"),
    (re.compile(r"blake3|xxh|crc32|zstd"), "#19a979"),
    (re.compile(r"^(mi_|_mi_)|alloc::"), "#ed4a7b"),
    (re.compile(r"^(?!all$)[\w.]+$"), "#945ecf"),
]


def stacks(lines):
    """The samples as lists of frames, the outermost first."""
    stack = []
    for line in lines:
        if line[:1] in " \t" and line.strip():
            name = line.split(None, 1)[1].strip() if " " in line.strip() else ""
            name = re.sub(r"\+0x[0-9a-f]+$", "", name)
            name = re.sub(r"::h[0-9a-f]{16}$", "", name)
            if name and not NOISE.match(name):
                stack.append(name)
        elif stack:
            yield stack[::-1]
            stack = []
    if stack:
        yield stack[::-1]


class Frame:
    """A frame and what stands on it."""

    def __init__(self):
        self.samples = 0
        self.above = {}


def tree(samples, depth):
    root = Frame()
    for stack in samples:
        root.samples += 1
        at = root
        for name in stack[:depth]:
            at = at.above.setdefault(name, Frame())
            at.samples += 1
    return root


def colour(name):
    return next((hue for pattern, hue in COLOURS if pattern.search(name)), "#bf9f66")


def short(name):
    """A name without its generics and all but the end of its path."""
    of_trait = re.match(r"^<&?(.+?) as .*>::(\w+)", name)
    if of_trait:
        name = "::".join(of_trait.groups())
    while re.search(r"<[^<>]*>", name):
        name = re.sub(r"<[^<>]*>", "", name)
    name = name.replace("{{closure}}", "{}").replace("<", "")
    return "::".join([part for part in name.split("::") if part and part != "{}"][-2:]) or name


def draw(frame, name, left, level, total, least, boxes):
    width = WIDTH * frame.samples / total
    if width < least:
        return level
    boxes.append((left, level, width, name, 100 * frame.samples / total))
    top = level
    for child, above in sorted(frame.above.items()):
        top = max(top, draw(above, child, left, level + 1, total, least, boxes))
        left += WIDTH * above.samples / total
    return top


def svg(root, title, least):
    boxes = []
    levels = draw(root, "all", 0.0, 0, root.samples, least, boxes) + 1
    height = ROW * (levels + 2)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="monospace" font-size="{TEXT}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fffdf7"/>',
        f'<text x="8" y="{ROW}">{html.escape(title)}: {root.samples} samples</text>',
    ]
    for left, level, width, name, share in boxes:
        y = height - ROW * (level + 1)
        words = html.escape(f"{name} {share:.1f} %")
        out.append(
            f'<g><title>{words}</title><rect x="{left:.1f}" y="{y}" width="{width:.1f}" '
            f'height="{ROW - 1}" fill="{colour(name)}" rx="1"/>'
        )
        room = int((width - 4) / (TEXT * 0.6))
        if room > 3:
            label = html.escape(short(name)[:room])
            out.append(f'<text x="{left + 2:.1f}" y="{y + ROW - 5}">{label}</text>')
        out.append("</g>")
    out.append("</svg>")
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--title", default="profile")
    parser.add_argument("--depth", type=int, default=60, help="frames of a stack that are drawn")
    parser.add_argument("--least", type=float, default=2.0, help="pixels of the narrowest box")
    args = parser.parse_args()
    root = tree(stacks(sys.stdin), args.depth)
    if root.samples == 0:
        sys.exit("no samples on standard input: is it the output of `perf script`?")
    print(svg(root, args.title, args.least))


if __name__ == "__main__":
    main()
