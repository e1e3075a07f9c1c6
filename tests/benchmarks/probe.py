"""One measurement as a program: reads `function key=value …`, prints one JSON object of figures."""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

Figures = dict[str, float]
"""Figure key → value, in the unit that `suite.py` declares for the key."""


def main(*functions: Callable[..., Any]) -> None:
    """Run the function named on the command line, plain or async, and print the figures it returns."""
    by_name = {function.__name__: function for function in functions}
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("function", choices=sorted(by_name))
    parser.add_argument("options", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    function = by_name[arguments.function]
    options = _typed(function, arguments.options)
    # Libraries may print what they like while they are measured; stdout belongs to the answer.
    answer = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    figures = asyncio.run(function(**options)) if inspect.iscoroutinefunction(function) else function(**options)
    with os.fdopen(answer, "w") as stream:
        stream.write(json.dumps(figures) + "\n")


def _typed(function: Callable[..., Any], options: list[str]) -> dict[str, Any]:
    types = get_type_hints(function)
    pairs = (option.split("=", 1) for option in options)
    return {key: types[key](value) for key, value in pairs}


@contextmanager
def workspace() -> Iterator[Path]:
    """An empty folder for the databases of one measurement, on the disk that TMPDIR names."""
    with tempfile.TemporaryDirectory(prefix="contenthub-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
