#!/usr/bin/env python3
"""Reports Rust functions and files that grew past 70 and 600 lines since a base revision.

Length is a reason to look, not to cut, so this reports only what the change at hand made longer:
what was as long before is not mentioned. Exit status 1 if there is anything to look at.

    scripts/tidy.py [BASE]        BASE defaults to main
"""
import os
import re
import subprocess
import sys

FUNCTION_MAX = 70
FILE_MAX = 600
FUNCTION = re.compile(r"^(\s*)(?:pub(?:\([^)]*\))? )?(?:const |async |unsafe )*fn (\w+)")


def git(*args):
    return subprocess.run(["git", *args], capture_output=True, text=True, check=False)


def is_end(line, indent):
    """A closing brace at the function's own indentation, or a signature without a body."""
    own = len(line) - len(line.lstrip()) == len(indent)
    return own and (line.lstrip().startswith("}") or line.rstrip().endswith((";", "}")))


def functions(text):
    """Name and length of every function; in rustfmt's layout one ends at its own indentation."""
    lines = text.splitlines()
    found = {}
    for start, line in enumerate(lines):
        match = FUNCTION.match(line)
        if not match:
            continue
        indent, name = match.groups()
        for end in range(start, len(lines)):
            if is_end(lines[end], indent):
                found[name] = max(found.get(name, 0), end - start + 1)
                break
    return found


def changed(base):
    tracked = git("diff", "--name-only", "--diff-filter=d", base, "--", "*.rs").stdout.split()
    new = git("ls-files", "--others", "--exclude-standard", "--", "*.rs").stdout.split()
    return sorted(set(tracked + new))


def grew(base, path):
    with open(path, encoding="utf-8") as file:
        now = file.read()
    before = git("show", f"{base}:{path}").stdout
    was, length = len(before.splitlines()), len(now.splitlines())
    if length > FILE_MAX and length > was:
        yield f"{path}: {length} lines (was {was}, look beyond {FILE_MAX})"
    known = functions(before)
    for name, length in functions(now).items():
        if length > FUNCTION_MAX and length > known.get(name, 0):
            yield f"{path}: fn {name} has {length} lines (was {known.get(name, 0)}, look beyond {FUNCTION_MAX})"


def main():
    base = sys.argv[1] if len(sys.argv) > 1 else "main"
    top = git("rev-parse", "--show-toplevel").stdout.strip()
    if git("rev-parse", "--verify", "--quiet", f"{base}^{{commit}}").returncode != 0:
        print(f"{base} is no revision", file=sys.stderr)
        return 2
    os.chdir(top)
    reports = [line for path in changed(base) for line in grew(base, path)]
    print("\n".join(reports) if reports else f"nothing grew too long since {base}")
    return 1 if reports else 0


if __name__ == "__main__":
    sys.exit(main())
