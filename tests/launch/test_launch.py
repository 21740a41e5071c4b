"""The launch scripts, with a Python and a pip that only pretend."""

import os
import pathlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

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


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> Checkout:
  return Checkout(tmp_path)


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


def test_first_run_installs_then_runs_the_quickstart(checkout: Checkout) -> None:
  code, out, err = checkout.run('run.sh')
  assert code == 0
  assert out == [
    f'in {checkout.path}',
    '<-m>',
    '<ovs_jax.main>',
    '<--config=configs/quickstart.py>',
  ]
  assert err == [
    f'launch: Making .venv with {checkout.python}.',
    'launch: Installing requirements.txt into .venv '
    '(the first time: a few minutes, and 3 GB of disk).',
    'launch: Installed.',
  ]
  assert checkout.read('venv.log') == ['made by python3.12']
  assert checkout.read('pip.log') == PIP_RUN


def test_second_run_installs_nothing_and_writes_nothing(checkout: Checkout) -> None:
  checkout.run('run.sh')
  checkout.read('venv.log')
  checkout.read('pip.log')
  before = sorted((f, f.stat().st_mtime_ns) for f in checkout.path.rglob('*'))
  code, out, err = checkout.run('run.sh')
  assert (code, err) == (0, [])
  assert out[-1] == '<--config=configs/quickstart.py>'
  assert checkout.read('venv.log') == checkout.read('pip.log') == []
  assert sorted((f, f.stat().st_mtime_ns) for f in checkout.path.rglob('*')) == before


def test_arguments_pass_through_intact(checkout: Checkout) -> None:
  args = ['--image=my photo.jpg', '', '*', "it's", '"quoted"', '$HOME', '-x']
  _, out, _ = checkout.run('run.sh', *args)
  assert out[1:] == ['<-m>', '<ovs_jax.main>', *(f'<{a}>' for a in args)]
  _, out, _ = checkout.run('test.sh', '-k', 'a and b')
  assert out[1:] == ['<-m>', '<pytest>', '<-k>', '<a and b>']


@pytest.mark.parametrize('script', ['run.sh', 'test.sh'])
def test_exit_code_passes_through(checkout: Checkout, script: str) -> None:
  assert [checkout.run(script, FAKE_EXIT=code)[0] for code in ('5', '0')] == [5, 0]


def test_tests_add_to_the_same_venv(checkout: Checkout) -> None:
  checkout.run('run.sh')
  checkout.read('pip.log')
  code, out, _ = checkout.run('test.sh')
  assert (code, out[1:]) == (
    0,
    ['<-m>', '<pytest>', '<-n>', '<3>', '<--dist>', '<loadfile>']
    + ['<--no-loadscope-reorder>'],
  )
  assert checkout.read('pip.log') == PIP_TEST
  assert checkout.read('venv.log') == ['made by python3.12']
  checkout.run('test.sh')
  checkout.run('run.sh')
  assert checkout.read('pip.log') == []


def test_test_requirements_include_those_of_run(checkout: Checkout) -> None:
  checkout.run('test.sh')
  assert checkout.read('pip.log') == PIP_TEST
  assert checkout.run('run.sh')[0] == 0
  assert checkout.read('pip.log') == []


def test_changed_requirements_are_installed(checkout: Checkout) -> None:
  checkout.run('run.sh')
  checkout.read('pip.log')
  core = checkout.path / 'requirements' / 'core.txt'
  core.write_text(core.read_text().replace('# arrays on', '# some other words on'))
  checkout.run('run.sh')
  assert checkout.read('pip.log') == []
  core.write_text(core.read_text().replace('numpy>=2.0', 'numpy>=2.1'))
  checkout.run('run.sh')
  assert checkout.read('pip.log') == PIP_RUN
  assert checkout.read('venv.log') == ['made by python3.12']


# --- Which Python -----------------------------------------------------------------


def test_ovs_python_is_honoured(checkout: Checkout) -> None:
  mine = checkout.add_python('my python', version='3.11')
  code, _, err = checkout.run('run.sh', OVS_PYTHON=str(mine))
  assert (code, err[0]) == (0, f'launch: Making .venv with {mine}.')
  assert checkout.read('venv.log') == ['made by my python']
  checkout.run('run.sh')  # without OVS_PYTHON, the .venv that is there is good
  assert checkout.read('venv.log') == []
  checkout.run('run.sh', OVS_PYTHON='python3.12')  # another version makes it again
  assert checkout.read('venv.log') == ['made by python3.12']
  assert sorted(f.name for f in (checkout.path / '.venv' / 'lib').iterdir()) == [
    'python3.12'
  ]


def test_skips_pythons_that_do_not_do(checkout: Checkout) -> None:
  broken = checkout.bin / 'python3.13'
  broken.write_text('#!/bin/bash\necho "python3.13: command not found" >&2; exit 127')
  broken.chmod(0o755)
  checkout.python.unlink()
  checkout.add_python('python3.11', version='3.11', has_venv=False)
  good = checkout.add_python('python3', version='3.14')
  code, _, err = checkout.run('run.sh')
  assert (code, err[0]) == (0, f'launch: Making .venv with {good}.')


def test_no_python_is_one_sentence(checkout: Checkout) -> None:
  checkout.python.unlink()
  sentence = (
    'launch: No Python 3.11 or newer was found on PATH: '
    'install one, or set OVS_PYTHON to one.'
  )
  assert checkout.run('run.sh') == (1, [], [sentence])
  checkout.add_python('python3', version='3.10')
  assert checkout.run('run.sh') == (1, [], [sentence])


def test_no_venv_module_is_one_sentence(checkout: Checkout) -> None:
  python = checkout.add_python('python3.12', version='3.12', has_venv=False)
  sentence = (
    f'launch: {python} (Python 3.12) cannot make virtual environments: install its '
    'venv module (on Debian and Ubuntu the package python3-venv), '
    'or set OVS_PYTHON to another.'
  )
  assert checkout.run('run.sh') == (1, [], [sentence])
  assert checkout.run('run.sh', OVS_PYTHON=str(python)) == (1, [], [sentence])


def test_bad_ovs_python_is_one_sentence(checkout: Checkout) -> None:
  old = checkout.add_python('old', version='3.9')
  assert checkout.run('run.sh', OVS_PYTHON=str(old))[1:] == (
    [],
    [
      f'launch: OVS_PYTHON={old} is Python 3.9: '
      'set OVS_PYTHON to a Python 3.11 or newer, or unset it.'
    ],
  )
  assert checkout.run('run.sh', OVS_PYTHON='/nowhere/python') == (
    1,
    [],
    [
      'launch: OVS_PYTHON=/nowhere/python does not run: '
      'set OVS_PYTHON to a Python 3.11 or newer, or unset it.'
    ],
  )


# --- When installing goes wrong ---------------------------------------------------

RETRYING = (
  'WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by '
  "'NewConnectionError: Failed to establish a new connection: [Errno -3] Temporary "
  "failure in name resolution': /simple/absl-py/"
)
MISSING = (
  'ERROR: Could not find a version that satisfies the requirement absl-py>=2.1 '
  '(from versions: none)'
)
FAILURES = {
  'network': (
    f'{RETRYING}\n{MISSING}\nERROR: No matching distribution found for absl-py>=2.1',
    'The package index cannot be reached: check the network, proxy and pip settings, '
    'then start again (details in .venv/install.log).',
  ),
  'missing': (
    f'{MISSING}\nERROR: No matching distribution found for absl-py>=2.1',
    "The package index has no absl-py>=2.1 for this machine's Python 3.12: set "
    'OVS_PYTHON to another version (3.11 to 3.13 are tested), '
    "or check pip's index settings.",
  ),
  'disk': (
    'ERROR: Could not install packages due to an OSError: '
    '[Errno 28] No space left on device',
    'The disk is full: {path}/.venv needs about 3 GB and /var/scratch about 1 GB.',
  ),
  'permission': (
    'ERROR: Could not install packages due to an OSError: '
    "[Errno 13] Permission denied: '/x'",
    'Cannot write to {path}/.venv: make it writable, or copy the repository elsewhere.',
  ),
  'other': (
    'Collecting x\nERROR: Cannot install x and y\nbye',
    'Installing failed: ERROR: Cannot install x and y (details in .venv/install.log).',
  ),
}


@pytest.mark.parametrize('kind', FAILURES)
def test_failed_pip_is_one_sentence(checkout: Checkout, kind: str) -> None:
  output, sentence = FAILURES[kind]
  checkout.fake_pip(f"cat >&2 <<'END'\n{output}\nEND\nexit 1")
  code, out, err = checkout.run('run.sh', TMPDIR='/var/scratch')
  assert (code, out) == (1, [])
  assert [line.split()[1] for line in err[:-1]] == ['Making', 'Installing']
  assert err[-1] == 'launch: ' + sentence.format(path=checkout.path)

  checkout.fake_pip('')
  checkout.read('pip.log')
  assert checkout.run('run.sh')[0] == 0
  assert checkout.read('pip.log') == PIP_RUN
  assert checkout.read('venv.log') == ['made by python3.12']


def test_shows_large_downloads(checkout: Checkout) -> None:
  checkout.fake_pip(
    'echo "  Downloading https://x/y/big-1-py3-none-any.whl (274.0 MB)"\n'
    'echo "Downloading larger-1-py3-none-any.whl (86.8 MB)"\n'
    'echo "Downloading small-1-py3-none-any.whl (9.1 MB)"\n'
    'echo "Downloading tiny-1-py3-none-any.whl (154 kB)"\n'
    'echo "Installing collected packages: big, larger"\n'
  )
  _, _, err = checkout.run('run.sh')
  assert err[2:] == [
    'launch:   downloading big-1-py3-none-any.whl (274.0 MB)',
    'launch:   downloading larger-1-py3-none-any.whl (86.8 MB)',
    'launch:   unpacking',
    'launch: Installed.',
  ]


def test_venv_that_cannot_be_written_is_one_sentence(checkout: Checkout) -> None:
  (checkout.path / '.venv').touch()
  sentence = (
    f'launch: Cannot write to {checkout.path}/.venv: make it writable, '
    'or copy the repository elsewhere.'
  )
  assert checkout.run('run.sh') == (1, [], [sentence])


def test_killed_installation_goes_on(checkout: Checkout) -> None:
  packages = checkout.path / '.venv' / 'lib' / 'python3.12' / 'site-packages'
  checkout.fake_pip(
    f'cd "{packages}"; mkdir whole.dist-info cut.dist-info\n'
    'echo pip >whole.dist-info/INSTALLER; echo "$FAKE" >>"$FAKE/ready"; exec sleep 60'
  )
  process = checkout.start('run.sh')
  wait_for(lambda: (checkout.path.parent / 'ready').exists())
  process.kill()
  [pid] = checkout.read('pip.pid')
  os.kill(int(pid), signal.SIGKILL)
  process.communicate()
  assert sorted(f.name for f in packages.iterdir()) == [
    'cut.dist-info',
    'whole.dist-info',
  ]

  checkout.fake_pip('')
  checkout.read('pip.log')
  code, out, err = checkout.run('run.sh')
  assert (code, out[2], err[-1]) == (0, '<ovs_jax.main>', 'launch: Installed.')
  assert checkout.read('pip.log') == PIP_RUN
  assert [f.name for f in packages.iterdir()] == ['whole.dist-info']
  assert checkout.read('venv.log') == ['made by python3.12']


def test_interrupt_is_one_sentence(checkout: Checkout) -> None:
  checkout.fake_pip(': >"$FAKE/ready"; exec sleep 60')
  # A background job ignores interrupts, and so would the scripts that it starts.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  process = checkout.start('run.sh')
  signal.signal(signal.SIGINT, before)
  wait_for(lambda: (checkout.path.parent / 'ready').exists())
  os.killpg(process.pid, signal.SIGINT)
  out, err = process.communicate(timeout=20)
  assert (process.returncode, out) == (130, '')
  assert err.splitlines()[2:] == [
    'launch: Interrupted; start again to go on from here.'
  ]
  assert not list((checkout.path / '.venv').glob('installed-*'))


def test_half_made_venv_is_made_again(checkout: Checkout) -> None:
  checkout.run('run.sh')
  checkout.read('venv.log')
  (checkout.path / '.venv' / 'unfinished').touch()
  (checkout.path / '.venv' / 'rubbish').mkdir()
  assert checkout.run('run.sh')[0] == 0
  assert checkout.read('venv.log') == ['made by python3.12']
  assert not (checkout.path / '.venv' / 'rubbish').exists()


def test_second_start_waits_for_the_first(checkout: Checkout) -> None:
  checkout.fake_pip('while [[ ! -e $FAKE/go ]]; do sleep 0.02; done')
  first = checkout.start('run.sh')
  wait_for(lambda: (checkout.path.parent / 'pip.log').exists())
  second = checkout.start('run.sh', 'second')
  assert second.stderr is not None
  line = second.stderr.readline()
  assert line == 'launch: Waiting for another start to finish installing.\n'
  (checkout.path.parent / 'go').touch()
  first.communicate(timeout=20)
  out, err = second.communicate(timeout=20)
  assert (first.returncode, second.returncode) == (0, 0)
  assert (out.splitlines()[-1], err) == ('<second>', '')
  assert checkout.read('pip.log') == PIP_RUN
  assert checkout.read('venv.log') == ['made by python3.12']
