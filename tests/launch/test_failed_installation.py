"""When installing goes wrong, is interrupted or is wanted twice."""

import os
import signal

import pytest
from fake_checkout import PIP_RUN, Checkout, wait_for

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
