"""A checkout whose Python and pip only pretend."""

import pathlib
import shutil
import subprocess
import time
from collections.abc import Callable

ROOT = pathlib.Path(__file__).parents[2]
TOOLS = 'bash cat cp dirname env find flock grep mkdir mv rm sed sleep tail'.split()

# Pretends to be Python: reports `version`, makes a .venv of a copy of itself, writes
# the pip commands to pip.log, and shows how the program was started.
FAKE_PYTHON = r"""#!/bin/bash
set -euo pipefail
version={version}
case "$1 ${{2:-}}" in
  '-c '*version_info*) echo "$version" ;;
  '-c '*ensurepip*) exit {no_venv} ;;
  '-m venv')
    mkdir -p "$3/bin" "$3/lib/python$version/site-packages"
    cp "$0" "$3/bin/python"
    echo "made by ${{0##*/}}" >>"$FAKE/venv.log"
    ;;
  '-m pip')
    shift 3  # with --no-input
    [[ $1 == --version ]] && exit
    echo "$*" >>"$FAKE/pip.log"
    echo $$ >"$FAKE/pip.pid"
    [[ ! -e $FAKE/pip.sh ]] || source "$FAKE/pip.sh"
    ;;
  *)
    echo "in $PWD"
    printf '<%s>\n' "$@"
    exit "${{FAKE_EXIT:-0}}"
    ;;
esac
"""


class Checkout:
  """A copy of the scripts in a path with spaces, and a PATH with a fake Python."""

  def __init__(self, path: pathlib.Path) -> None:
    self.path = path / 'a check out'
    self.bin = path / 'the bin'
    self.path.mkdir()
    self.bin.mkdir()
    shutil.copytree(ROOT / 'launch', self.path / 'launch')
    shutil.copytree(ROOT / 'requirements', self.path / 'requirements')
    shutil.copy(ROOT / 'requirements.txt', self.path)
    for tool in TOOLS:
      found = shutil.which(tool)
      if found:  # flock is not everywhere
        (self.bin / tool).symlink_to(found)
    self.python = self.add_python('python3.12', version='3.12')
    self.env = {'PATH': str(self.bin), 'FAKE': str(path)}

  def add_python(
    self, name: str, *, version: str, has_venv: bool = True
  ) -> pathlib.Path:
    file = self.bin / name
    file.write_text(FAKE_PYTHON.format(version=version, no_venv=int(not has_venv)))
    file.chmod(0o755)
    return file

  def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
    """Starts `launch/NAME ARGS...` from another directory."""
    script, *rest = args
    return subprocess.Popen(
      [self.path / 'launch' / script, *rest],
      cwd=self.bin,
      env=self.env | env,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      start_new_session=True,
    )

  def run(self, *args: str, **env: str) -> tuple[int, list[str], list[str]]:
    """Returns the exit code and the lines of both streams."""
    process = self.start(*args, **env)
    out, err = process.communicate(timeout=20)
    return process.returncode, out.splitlines(), err.splitlines()

  def fake_pip(self, script: str) -> None:
    (self.path.parent / 'pip.sh').write_text(script)

  def read(self, name: str) -> list[str]:
    """The lines of a log of the fakes, which starts anew."""
    file = self.path.parent / name
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return lines


def wait_for(condition: Callable[[], bool]) -> None:
  deadline = time.monotonic() + 10
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.01)


PIP_RUN = [
  'install --progress-bar off -r requirements.txt',
  'install --no-deps -r requirements/vocabulary-py313.txt',
]
PIP_TEST = [
  'install --progress-bar off -r requirements/test.txt',
  'install --no-deps -r requirements/vocabulary-py313.txt',
]
