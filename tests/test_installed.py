"""The package in an environment of its own, and all commands under one name."""

import os
import pathlib
import subprocess
import sys
import venv

import pytest

from ovs_jax import arguments
from ovs_jax.__main__ import COMMANDS

ROOT = pathlib.Path(__file__).parents[1]


def run(line: list[str], folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
  environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
  return subprocess.run(
    line, cwd=folder, capture_output=True, text=True, check=False, env=environment
  )


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_tells_its_options(name: str) -> None:
  done = run([sys.executable, '-m', 'ovs_jax', name, '--help'], ROOT)
  assert done.returncode in (0, 1), done.stderr  # absl's help ends with 1
  assert '--' in done.stdout and 'Traceback' not in done.stderr


def test_what_is_no_command() -> None:
  done = run([sys.executable, '-m', 'ovs_jax', 'predit'], ROOT)
  assert done.returncode == 2
  assert done.stderr.startswith("error: 'predit' is no command of predict, ")
  assert done.stderr.endswith("Did you mean 'predict'?\n")
  assert 'ovs-jax COMMAND' in run([sys.executable, '-m', 'ovs_jax'], ROOT).stdout


@pytest.mark.parametrize(
  'given',
  [
    ['--config=quickstart:smoke'],
    ['--config=configs/quickstart.py:smoke'],
    ['--config', 'quickstart.py:smoke'],
  ],
)
def test_configurations_by_name(
  given: list[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.chdir(tmp_path)
  found = arguments.with_packaged(['main', *given, '--config.seed=1'])
  assert found[-2].removeprefix('--config=') == f'{ROOT}/configs/quickstart.py:smoke'
  assert found[-1] == '--config.seed=1'
  (tmp_path / 'quickstart.py').touch()  # a file of one's own comes first
  own = ['main', '--config=quickstart.py', '--config=nothing', '--config']
  assert arguments.with_packaged(own) == own


@pytest.mark.slow
def test_installed_from_a_wheel(tmp_path: pathlib.Path) -> None:
  source = tmp_path / 'source'
  listed = run(['git', 'ls-files', '-z'], ROOT).stdout.split('\0')
  for name in filter(None, listed):
    (source / name).parent.mkdir(parents=True, exist_ok=True)
    (source / name).write_bytes((ROOT / name).read_bytes())
  pip = [sys.executable, '-m', 'pip', '-q']
  built = run([*pip, 'wheel', '--no-deps', f'--wheel-dir={tmp_path}', '.'], source)
  assert built.returncode == 0, built.stderr
  (wheel,) = tmp_path.glob('*.whl')
  venv.create(tmp_path / 'venv', with_pip=False)
  python = tmp_path / 'venv' / 'bin' / 'python'
  (site,) = (tmp_path / 'venv' / 'lib').glob('*/site-packages')
  # All that it needs, from where it is installed already.
  needed = next(path for path in sys.path if path.endswith('site-packages'))
  (site / 'needed.pth').write_text(needed)
  installed = run(
    [*pip, f'--python={python}', 'install', '--no-deps', str(wheel)], tmp_path
  )
  assert installed.returncode == 0, installed.stderr
  command = str(tmp_path / 'venv' / 'bin' / 'ovs-jax')
  line = [command, 'train', '--config=coseg_prefix_vitb16:smoke']
  done = run([*line, '--workdir=run'], tmp_path)
  assert done.returncode == 0, done.stderr
  assert (tmp_path / 'run' / 'config.json').is_file()
  where = run([str(python), '-c', 'import ovs_jax; print(ovs_jax.__file__)'], tmp_path)
  assert where.stdout.startswith(str(site))
