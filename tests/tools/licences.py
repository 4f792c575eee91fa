#!/usr/bin/env python3
"""Checks the licence of every dependency against the list in deny.toml.

A light stand-in for `cargo deny check licenses`, which not every machine has: each dependency must
be usable under licences of that list alone, and must come from the registry.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def usable(expression: str, allowed: set[str]) -> bool:
    """Evaluates an SPDX expression: a licence is true if it is allowed."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))
    at = 0

    def either() -> bool:
        nonlocal at
        value = both()
        while at < len(tokens) and tokens[at] == "OR":
            at += 1
            other = both()
            value = value or other
        return value

    def both() -> bool:
        nonlocal at
        value = one()
        while at < len(tokens) and tokens[at] == "AND":
            at += 1
            other = one()
            value = value and other
        return value

    def one() -> bool:
        nonlocal at
        token = tokens[at]
        at += 1
        if token == "(":
            value = either()
            at += 1
            return value
        if at < len(tokens) and tokens[at] == "WITH":
            token = f"{token} WITH {tokens[at + 1]}"
            at += 2
        return token in allowed

    return either()


def main() -> int:
    # Read without a TOML library, which Python has only since 3.11.
    section = (ROOT / "deny.toml").read_text().split("[licenses]")[1]
    allowed = set(re.findall(r'"([^"]+)"', section[: section.index("]")]))
    metadata = json.loads(
        subprocess.run(
            ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
    )
    problems = []
    for package in metadata["packages"]:
        name = f"{package['name']} {package['version']}"
        if not usable(package["license"] or "none", allowed):
            problems.append(f"{name}: {package['license']}")
        if package["source"] is not None and not package["source"].startswith("registry+"):
            problems.append(f"{name}: not from the registry")
    for problem in problems:
        print(f"licences: {problem}", file=sys.stderr)
    print(f"licences: {len(metadata['packages'])} packages, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
