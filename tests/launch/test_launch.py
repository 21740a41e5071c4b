"""The launch scripts, with a Python and a pip that only pretend."""

import pytest
from fake_checkout import PIP_RUN, PIP_TEST, Checkout


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
    ['<-m>', '<pytest>', '<-n>', '<4>', '<--dist>', '<loadfile>']
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
