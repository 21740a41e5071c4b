"""launch/tpu_pod.sh with a gcloud of this machine, whose workers run for real."""

import pathlib
import re

import pytest
from fake_checkout import Checkout, wait_for
from fake_gcloud import calls, install

TOOLS = ('git', 'mktemp', 'tar', 'nohup', 'setsid', 'uname', 'gzip')
TPU = ('--name=ovs', '--zone=us-east5-a', '--type=v5litepod-16')
CONFIG = ('--', '--config=configs/a b.py')
# The program: what a worker does is in $FAKE/run.
PROGRAM = """
  *)
    printf '<%s>\\n' "$@"
    [[ ! -e $FAKE/run ]] || source "$FAKE/run"
    exit 0
    ;;
"""


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> Checkout:
  made = Checkout(tmp_path)
  for tool in TOOLS:
    (made.bin / tool).symlink_to(f'/usr/bin/{tool}')
  made.env['OVS_TPU_PAUSE'] = '0.1'
  head, _, _ = made.python.read_text().rpartition('  *)\n')
  made.python.write_text(head + PROGRAM.lstrip('\n') + 'esac\n')
  return made


def said(lines: list[str]) -> list[str]:
  """What tpu_pod.sh says, without the installations of the workers."""
  return [x for x in lines if not re.search('Making|Installing|Installed', x)]


def does(checkout: Checkout, script: str) -> None:
  (checkout.path.parent / 'run').write_text(script)


def kinds(checkout: Checkout) -> list[str]:
  """gcloud's commands, without the looks at states."""
  names = [line.split()[4] for line in calls(checkout) if ' compute ' in line]
  return [name for name in names if name != 'describe']


GCLOUD = 'gcloud compute tpus'
PLACE = '--zone=us-east5-a'
UNPACK = r'rm\ -rf\ ovs_jax/ovs_jax\ \&\&\ mkdir\ -p\ ovs_jax\ \&\&\ '
UNPACK += r'tar\ -xzf\ ovs_jax.tar.gz\ -C\ ovs_jax'
WORKER = r'ovs_jax/launch/tpu_worker.sh'


def test_the_command_lines(checkout: Checkout) -> None:
  """All of them, in order, as they were read against gcloud's reference."""
  install(checkout, 'ACTIVE')
  (checkout.path / 'checkpoints').mkdir()
  code, _, err = checkout.run(
    'tpu_pod.sh', *TPU, '--bucket=b', '--spot', '--delete', '--', '--config=c/x.py'
  )
  assert code == 0, err
  arguments = r'--\ --config=c/x.py\ --workdir=gs://b/runs/x\ '
  arguments += r'--config.dataset.data_dir=gs://b/data'
  assert [line for line in calls(checkout) if ' describe ' not in line] == [
    f'{GCLOUD} queued-resources create ovs --node-id=ovs --accelerator-type='
    f'v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --spot {PLACE}',
    rf'{GCLOUD} tpu-vm ssh ovs --worker=0 --command={WORKER}\ runs {PLACE}',
    'gcloud storage rsync --recursive checkpoints gs://b/checkpoints',
    f'{GCLOUD} tpu-vm scp ovs_jax.tar.gz ovs:ovs_jax.tar.gz --worker=all {PLACE}',
    f'{GCLOUD} tpu-vm ssh ovs --worker=all --command={UNPACK} {PLACE}',
    rf'{GCLOUD} tpu-vm ssh ovs --worker=all --command={WORKER}\ start\ --bucket=b\ '
    f'{arguments} {PLACE}',
    *[
      'gcloud storage ls gs://b/checkpoints/',
      'gcloud storage rsync --recursive gs://b/checkpoints checkpoints',
    ]
    * 2,  # by both workers
    f'{GCLOUD} tpu-vm ssh ovs --worker=0 --command={WORKER}\\ follow {PLACE}',
    f'{GCLOUD} queued-resources delete ovs --force --quiet {PLACE}',
  ]


def test_all_workers_get_what_the_run_needs(checkout: Checkout) -> None:
  install(checkout)
  given = checkout.path / 'checkpoints/clip/model'
  given.mkdir(parents=True)
  (given / 'weights').write_text('12')
  does(checkout, 'cat checkpoints/clip/model/weights; : >"$FAKE/ran$WORKER"')
  code, out, err = checkout.run('tpu_pod.sh', *TPU, '--bucket=gs://b/', *CONFIG)
  assert code == 0
  assert said(err) == ['launch: Asking for the slice ovs (v5litepod-16).']
  shown = ['<-m>', '<ovs_jax.main>', '<--multihost>', '<--config=configs/a b.py>']
  shown += ['<--workdir=gs://b/runs/a b>', '<--config.dataset.data_dir=gs://b/data>']
  assert out == [*shown, '12']  # of the first worker
  folder = checkout.path.parent
  wait_for(lambda: all((folder / f'ran{i}').exists() for i in (0, 1)))
  asked = [line for line in checkout.read('pip.log') if 'requirements/' in line]
  assert sum('requirements/tpu.txt' in line for line in asked) == 2
  assert sum('requirements/gcs.txt' in line for line in asked) == 2


def test_results_may_go_elsewhere(checkout: Checkout) -> None:
  install(checkout)
  places = ('--workdir=gs://c/run', '--config.dataset.data_dir=gs://c/data')
  code, out, _ = checkout.run('tpu_pod.sh', *TPU, '--bucket=b', *CONFIG, *places)
  assert code == 0
  assert out[4:] == [f'<{place}>' for place in places]


def test_a_queue_is_waited_for(checkout: Checkout) -> None:
  install(checkout, *['WAITING_FOR_RESOURCES'] * 3, 'PROVISIONING', 'ACTIVE')
  code, _, err = checkout.run('tpu_pod.sh', *TPU, '--bucket=b', *CONFIG)
  assert code == 0
  assert said(err) == [
    'launch: Asking for the slice ovs (v5litepod-16).',
    'launch: The slice ovs is WAITING_FOR_RESOURCES; waiting.',
    'launch: The slice ovs is PROVISIONING; waiting.',
  ]
  assert kinds(checkout).count('create') == 1


def test_a_request_that_fails_is_made_again(checkout: Checkout) -> None:
  install(checkout, 'FAILED', 'ACTIVE')
  out_of_stock = 'if [[ ! -e $FAKE/once ]]; then : >"$FAKE/once"; exit 1; fi'
  (checkout.path.parent / 'create').write_text(out_of_stock)
  code, _, err = checkout.run('tpu_pod.sh', *TPU, '--bucket=b', *CONFIG)
  assert code == 0
  assert "launch: The slice is '', the last status 1; trying again." in err
  assert 'launch: The slice ovs is FAILED; it is asked for again.' in err
  assert kinds(checkout)[:4] == ['create', 'create', 'delete', 'create']


def test_a_lost_slice_is_asked_for_again(checkout: Checkout) -> None:
  install(checkout, 'ACTIVE')
  states = 'printf "%s\\n" {SUSPENDED,SUSPENDED,ACTIVE} >"$FAKE/states"'
  lose = f': >"$FAKE/lost"; {states}; kill -KILL $PPID'
  does(checkout, f'if [[ $WORKER == 0 && ! -e $FAKE/lost ]]; then {lose}; fi')
  code, _, err = checkout.run('tpu_pod.sh', *TPU, '--bucket=b', *CONFIG)
  assert code == 0, err
  assert 'launch: The run was killed.' in err
  assert 'launch: The slice ovs is SUSPENDED; it is asked for again.' in err
  once = ['create', 'ssh', 'scp', 'ssh', 'ssh', 'ssh']
  assert kinds(checkout) == [*once, 'delete', *once]


def leave(checkout: Checkout) -> None:
  """Starts a run of seconds, and is gone once it runs, as a laptop is."""
  install(checkout)
  does(checkout, 'for ((i = 0; i < 60; i++)); do sleep 0.05; done; echo done')
  first = checkout.start('tpu_pod.sh', *TPU, '--bucket=b', *CONFIG)
  assert first.stdout is not None
  while '--workdir' not in first.stdout.readline():
    assert first.poll() is None
  first.kill()


def test_a_run_outlives_its_connection(checkout: Checkout) -> None:
  leave(checkout)
  code, out, err = checkout.run('tpu_pod.sh', *TPU, '--bucket=b', *CONFIG)
  assert (code, out[-1]) == (0, 'done')
  assert err == ['launch: The run is still there; this is its output.']
  assert kinds(checkout).count('scp') == 1


def test_a_lost_connection_says_nothing_of_a_run(checkout: Checkout) -> None:
  leave(checkout)
  once = 'if [[ ! -e $FAKE/refused ]]; then : >"$FAKE/refused"; exit 255; fi'
  (checkout.path.parent / 'ssh').write_text(once)
  code, out, err = checkout.run('tpu_pod.sh', *TPU, '--bucket=b', *CONFIG)
  assert (code, out[-1]) == (0, 'done')
  assert err == [
    "launch: The slice is 'ACTIVE', the last status 255; trying again.",
    'launch: The run is still there; this is its output.',
  ]
  assert kinds(checkout).count('scp') == 1


def test_what_is_left_of_a_run_is_ended(checkout: Checkout) -> None:
  """The first worker's part has ended, another's has not."""
  install(checkout)
  rest = 'if [[ $WORKER == 1 && ! -e $FAKE/again ]]; then sleep 300; fi'
  does(checkout, f'{rest}; [[ -e $FAKE/again ]] || exit 75; : >"$FAKE/ran$WORKER"')
  code, _, _ = checkout.run('tpu_pod.sh', *TPU, '--tries=0', *CONFIG)
  assert code == 1
  folder = checkout.path.parent
  (folder / 'again').write_text('')
  code, _, err = checkout.run('tpu_pod.sh', *TPU, *CONFIG)
  assert code == 0
  assert 'launch: Part of an earlier run is still here; it is ended.' in err
  wait_for(lambda: all((folder / f'ran{i}').exists() for i in (0, 1)))


def test_machines_that_never_come_are_told(checkout: Checkout) -> None:
  install(checkout)
  (checkout.path.parent / 'machines').write_text('CREATING')
  pause = {'OVS_TPU_PAUSE': '0'}
  code, _, err = checkout.run('tpu_pod.sh', *TPU, '--tries=0', *CONFIG, **pause)
  assert code == 1
  assert any('The machines of ovs are not ready after 40 looks' in x for x in err)


def test_a_failed_run_leaves_the_slice(checkout: Checkout) -> None:
  install(checkout)
  does(checkout, 'exit 2')
  code, _, err = checkout.run('tpu_pod.sh', *TPU, '--bucket=b', '--delete', *CONFIG)
  assert code == 1
  assert err[-1] == (
    'launch: The run failed with status 2; the slice ovs is still there.'
  )
  assert 'delete' not in kinds(checkout)


def test_what_was_saved_goes_on(checkout: Checkout) -> None:
  install(checkout)
  does(checkout, 'exit 75')
  code, _, err = checkout.run('tpu_pod.sh', *TPU, '--tries=2', *CONFIG)
  assert code == 1
  assert err[-1] == 'launch: No luck in 3 tries; the same command goes on.'
  assert 'launch: No --bucket=: checkpoints are lost with the slice.' in err
  assert kinds(checkout).count('create') == 1


def test_a_failed_installation_runs_nothing(checkout: Checkout) -> None:
  install(checkout)
  checkout.fake_pip('exit 1')
  code, out, err = checkout.run('tpu_pod.sh', *TPU, *CONFIG)
  assert (code, out) == (1, [])
  assert any('Installing failed' in line for line in err)


class TestPython:
  """Images with Python 3.10 only."""

  @pytest.fixture(autouse=True)
  def old(self, checkout: Checkout) -> None:
    checkout.python.rename(checkout.path.parent / 'newer')
    checkout.add_python('python3', version='3.10')
    install(checkout)

  def test_uv_brings_one(self, checkout: Checkout) -> None:
    uv = 'mkdir -p "$HOME/.local/bin"; cp "$FAKE/uv" "$HOME/.local/bin/uv"'
    checkout.fake_pip(f'if [[ $* == *uv ]]; then {uv}; fi')
    program = checkout.path.parent / 'uv'
    program.write_text(
      '#!/bin/bash\necho "uv $*" >>"$FAKE/uv.log"\n'
      'if [[ $2 == find ]]; then echo "$FAKE/newer"; fi\n'
    )
    program.chmod(0o755)
    code, out, err = checkout.run('tpu_pod.sh', *TPU, *CONFIG)
    assert (code, out[1]) == (0, '<ovs_jax.main>'), err
    assert (
      checkout.read('uv.log') == ['uv python install 3.12', 'uv python find 3.12'] * 2
    )
    assert checkout.read('venv.log') == ['made by newer'] * 2

  def test_without_uv_it_is_one_sentence(self, checkout: Checkout) -> None:
    missing = 'ERROR: No matching distribution found for uv'
    checkout.fake_pip(f'echo "{missing}" >&2; exit 1')
    code, out, err = checkout.run('tpu_pod.sh', *TPU, *CONFIG)
    assert (code, out) == (1, [])
    sentence = "launch: The package index has no uv for this machine's Python 3.10: set"
    assert any(sentence in line for line in err), err

  def test_the_users_choice_is_passed_on(self, checkout: Checkout) -> None:
    mine = checkout.path.parent / 'my python'
    (checkout.path.parent / 'newer').rename(mine)
    code, _, err = checkout.run('tpu_pod.sh', *TPU, *CONFIG, OVS_PYTHON=str(mine))
    assert code == 0, err
    assert checkout.read('venv.log') == ['made by my python'] * 2


def test_dry_run_prints_and_does_nothing(checkout: Checkout) -> None:
  code, out, _ = checkout.run(
    'tpu_pod.sh', *TPU, '--dry-run', '--project=p', '--bucket=b', *CONFIG
  )
  assert code == 0
  words = [line.split() for line in out]
  assert [' '.join(w[:2] if w[0] != 'gcloud' else w[2:5]) for w in words] == [
    'tpus queued-resources create',
    'git archive',
    'tpus tpu-vm scp',
    'tpus tpu-vm ssh',
    'tpus tpu-vm ssh',
    'tpus tpu-vm ssh',
  ]
  assert all('--project=p' in w for w in words if w[0] == 'gcloud')
  assert not list(pathlib.Path('/tmp').glob('ovs_jax.tar.gz'))


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (TPU[1:] + CONFIG, '--name= is missing'),
    (TPU, 'Nothing to run'),
    ((*TPU, '--config=x'), 'Unknown argument --config=x'),
    ((*TPU, '--tries=x', *CONFIG), '--tries=x is not a number'),
    (
      (*TPU, '--bucket=b', '--', '--config', 'x.py'),
      'have no --config=configs/NAME.py',
    ),
    ((*TPU, '--bucket=b', *CONFIG), 'gcloud was not found on PATH'),
  ],
)
def test_mistakes_are_one_sentence(
  checkout: Checkout, arguments: tuple[str, ...], message: str
) -> None:
  code, out, err = checkout.run('tpu_pod.sh', *arguments)
  assert (code, out) == (1, []) and len(err) == 1 and message in err[0]
