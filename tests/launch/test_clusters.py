"""Scripts for GPUs, Slurm and Cloud TPU, with programs that only pretend."""

import pathlib
import signal
import subprocess
import time

import pytest
from fake_checkout import ROOT, Checkout, wait_for

TOOLS = ('git', 'mktemp', 'tar', 'seq')


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> Checkout:
  """A checkout whose .venv is made, with a few more tools."""
  made = Checkout(tmp_path)
  for tool in TOOLS:
    found = pathlib.Path('/usr/bin') / tool
    if found.exists():
      (made.bin / tool).symlink_to(found)
  made.run('run.sh')
  for log in ('pip.log', 'venv.log'):
    made.read(log)
  return made


def add(checkout: Checkout, name: str, script: str) -> None:
  """Puts a program on PATH that logs its arguments and runs `script`."""
  file = checkout.bin / name
  log = f'printf "%s\\n" "{name} $*" >>"$FAKE/{name}.log"'
  file.write_text(f'#!/bin/bash\n{log}\n{script}\n')
  file.chmod(0o755)


class TestGpuNode:
  @pytest.mark.parametrize(('driver', 'cuda'), [('580.65.06', 13), ('535.183.01', 12)])
  def test_takes_the_cuda_of_the_driver(
    self, checkout: Checkout, driver: str, cuda: int
  ) -> None:
    add(checkout, 'nvidia-smi', f'echo {driver}; echo {driver}')
    code, out, _ = checkout.run('gpu_node.sh', '--config=a b.py')
    assert code == 0 and out[-1] == '<--config=a b.py>'
    wanted = [f'install --progress-bar off -r requirements/cuda{cuda}.txt']
    assert checkout.read('pip.log') == wanted
    checkout.run('gpu_node.sh')
    assert checkout.read('pip.log') == []  # once

  def test_the_user_may_choose(self, checkout: Checkout) -> None:
    code, _, _ = checkout.run('gpu_node.sh', OVS_CUDA='12')
    assert code == 0 and 'cuda12' in checkout.read('pip.log')[0]
    code, _, err = checkout.run('gpu_node.sh', OVS_CUDA='11')
    assert code == 1 and err == ["launch: OVS_CUDA is '11': set it to 12 or 13."]

  def test_no_driver_is_one_sentence(self, checkout: Checkout) -> None:
    code, out, err = checkout.run('gpu_node.sh')
    assert (code, out) == (1, [])
    assert len(err) == 1 and err[0].startswith('launch: nvidia-smi does not run')


class TestSlurm:
  def test_starts_a_task_on_every_node(self, checkout: Checkout) -> None:
    add(checkout, 'srun', 'while [[ $1 == --* ]]; do shift; done; exec "$@"')
    code, out, err = checkout.run(
      'slurm.sh', '--config=a b.py', SLURM_SUBMIT_DIR=str(checkout.path)
    )
    assert (code, err) == (0, [])
    assert out[1:] == ['<-m>', '<ovs_jax.main>', '<--multihost>', '<--config=a b.py>']
    assert '--kill-on-bad-exit=1' in checkout.read('srun.log')[0]

  def test_what_was_saved_is_queued_again(self, checkout: Checkout) -> None:
    add(checkout, 'srun', 'exit 75')
    add(checkout, 'scontrol', '')
    code, _, err = checkout.run(
      'slurm.sh', '--config=x.py', SLURM_SUBMIT_DIR=str(checkout.path), SLURM_JOB_ID='7'
    )
    assert code == 0 and err == ['launch: Saved; the job queues itself again.']
    assert checkout.read('scontrol.log') == ['scontrol requeue 7']

  def test_failures_are_not(self, checkout: Checkout) -> None:
    add(checkout, 'srun', 'exit 2')
    add(checkout, 'scontrol', '')
    code, _, _ = checkout.run(
      'slurm.sh', '--config=x.py', SLURM_SUBMIT_DIR=str(checkout.path), SLURM_JOB_ID='7'
    )
    assert code == 2 and checkout.read('scontrol.log') == []

  def test_the_notice_reaches_the_tasks(self, checkout: Checkout) -> None:
    add(
      checkout,
      'srun',
      'trap "exit 75" TERM; : >"$FAKE/started"; while :; do sleep 0.05; done',
    )
    add(checkout, 'scontrol', '')
    process = checkout.start(
      'slurm.sh', '--config=x.py', SLURM_SUBMIT_DIR=str(checkout.path), SLURM_JOB_ID='7'
    )
    wait_for((checkout.path.parent / 'started').exists)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0 and 'queues itself again' in err
    assert checkout.read('scontrol.log') == ['scontrol requeue 7']

  def test_gpus_get_their_libraries(self, checkout: Checkout) -> None:
    add(checkout, 'srun', '')
    place = {'SLURM_SUBMIT_DIR': str(checkout.path), 'SLURM_GPUS_ON_NODE': '8'}
    assert checkout.run('slurm.sh', '--config=x.py', **place)[0] == 0
    assert 'requirements/cuda12.txt' in checkout.read('pip.log')[0]

  def test_other_directories_are_refused(self, checkout: Checkout) -> None:
    code, _, err = checkout.run('slurm.sh', 'x', SLURM_SUBMIT_DIR=str(checkout.bin))
    assert code == 1 and 'is not the root of ovs_jax: run sbatch there' in err[0]


TPU = ('--name=ovs', '--zone=us-east5-a', '--type=v5litepod-16')
CONFIG = ('--', '--config=a b.py')
# A slice exists while $FAKE/slice does.
GCLOUD = """
case "$4" in
  describe) cat "$FAKE/slice" ;;
  create) echo READY >"$FAKE/slice" ;;
  delete) rm -f "$FAKE/slice" ;;
  ssh) [[ $* != *launch/run.sh* ]] || source "$FAKE/run" ;;
esac
"""


def gcloud(checkout: Checkout, run: str) -> None:
  add(checkout, 'gcloud', GCLOUD)
  (checkout.path.parent / 'run').write_text(run)
  subprocess.run(['git', 'init', '-q'], cwd=checkout.path, check=True)
  identity = ['-c', 'user.name=a', '-c', 'user.email=a@b']
  commit = ['commit', '-qm', 'all', '--allow-empty']
  subprocess.run(['git', *identity, *commit], cwd=checkout.path, check=True)


def commands(checkout: Checkout) -> list[str]:
  """The names of gcloud's commands, without the looks at the state."""
  names = [line.split()[4] for line in checkout.read('gcloud.log')]
  return [name for name in names if name != 'describe']


class TestTpuPod:
  def test_makes_copies_installs_and_runs(self, checkout: Checkout) -> None:
    gcloud(checkout, 'echo "step 1 of 2"')
    code, out, err = checkout.run('tpu_pod.sh', *TPU, '--bucket=b', '--spot', *CONFIG)
    assert code == 0 and out == ['step 1 of 2']
    assert err == ['launch: Making the slice ovs (v5litepod-16).']
    log = checkout.read('gcloud.log')
    assert all('--zone=us-east5-a' in line for line in log)
    create = next(line for line in log if ' create ' in line)
    assert '--accelerator-type=v5litepod-16' in create and '--spot' in create
    assert any('gcsfuse --implicit-dirs b ovs_jax/runs' in line for line in log)
    assert any('add_accelerator tpu' in line for line in log)
    assert r'launch/run.sh --multihost --config=a\ b.py' in log[-1]
    assert all('--worker=all' in line for line in log if ' ssh ' in line)

  def test_a_lost_slice_is_made_again(self, checkout: Checkout) -> None:
    lose = 'if [[ -e $FAKE/lost ]]; then exit 0; fi\n'
    lose += ': >"$FAKE/lost"; echo PREEMPTED >"$FAKE/slice"; exit 255'
    gcloud(checkout, lose)
    code, _, err = checkout.run('tpu_pod.sh', *TPU, '--bucket=b', '--delete', *CONFIG)
    assert code == 0
    assert 'launch: The slice is PREEMPTED (status 255); going on.' in err
    once = ['scp', 'ssh', 'ssh', 'ssh', 'ssh']
    expected = ['create', *once, 'delete', 'create', *once, 'delete']
    assert commands(checkout) == expected

  def test_a_failed_run_leaves_the_slice(self, checkout: Checkout) -> None:
    gcloud(checkout, 'exit 2')
    code, _, err = checkout.run('tpu_pod.sh', *TPU, '--bucket=b', *CONFIG)
    assert code == 1
    assert err[-1] == (
      'launch: The run failed with status 2; the slice ovs is still there.'
    )
    assert commands(checkout).count('create') == 1

  def test_tries_have_an_end(self, checkout: Checkout) -> None:
    gcloud(checkout, 'exit 75')
    code, _, err = checkout.run('tpu_pod.sh', *TPU, '--tries=2', *CONFIG)
    assert code == 1 and err[-1].endswith('lost 3 times; start again to go on.')

  def test_a_failed_installation_runs_nothing(self, checkout: Checkout) -> None:
    gcloud(checkout, 'echo never')
    script = GCLOUD.replace('ssh)', 'scp) exit 1 ;;\n  ssh)')
    add(checkout, 'gcloud', script)
    code, out, _ = checkout.run('tpu_pod.sh', *TPU, *CONFIG)
    assert (code, out) == (1, [])
    assert 'ssh' not in commands(checkout)

  def test_dry_run_prints_and_does_nothing(self, checkout: Checkout) -> None:
    code, out, _ = checkout.run('tpu_pod.sh', *TPU, '--dry-run', '--project=p', *CONFIG)
    assert code == 0
    assert [line.split()[4] for line in out if line.startswith('gcloud')] == [
      'create',
      'scp',
      'ssh',
      'ssh',
      'ssh',
    ]
    assert all('--project=p' in line for line in out if line.startswith('gcloud'))

  @pytest.mark.parametrize(
    ('arguments', 'message'),
    [
      (TPU[1:] + CONFIG, '--name= is missing'),
      (TPU, 'Nothing to run'),
      ((*TPU, '--config=x'), 'Unknown argument --config=x'),
      ((*TPU, '--tries=x', *CONFIG), '--tries=x is not a number'),
      (TPU + CONFIG, 'gcloud was not found on PATH'),
    ],
  )
  def test_mistakes_are_one_sentence(
    self, checkout: Checkout, arguments: tuple[str, ...], message: str
  ) -> None:
    code, out, err = checkout.run('tpu_pod.sh', *arguments)
    assert (code, out) == (1, []) and len(err) == 1 and message in err[0]


# In place of .venv's Python: what a process does depends on its number.
MEMBER = """#!/bin/bash
case "$1" in
  -c) case "$2" in *version_info*) echo 3.12 ;; *) echo 4711 ;; esac ;;
  *) source "$FAKE/member" ;;
esac
"""


class TestLocalProcesses:
  def start(self, checkout: Checkout, member: str) -> subprocess.Popen[str]:
    (checkout.path / '.venv/bin/python').write_text(MEMBER)
    (checkout.path.parent / 'member').write_text(member)
    return checkout.start('local_processes.sh', '3', '--config=a b.py')

  def test_every_process_knows_its_place(self, checkout: Checkout) -> None:
    member = 'echo "$OVS_PROCESS of $OVS_PROCESSES at $OVS_COORDINATOR: $*"\n'
    out, _ = self.start(checkout, member).communicate(timeout=20)
    shared = 'of 3 at 127.0.0.1:4711: -m ovs_jax.main --multihost --config=a b.py'
    marks = ('', '[1] ', '[2] ')
    assert sorted(out.splitlines()) == sorted(
      f'{mark}{i} {shared}' for i, mark in enumerate(marks)
    )

  def test_one_failure_ends_the_others(self, checkout: Checkout) -> None:
    member = 'if [[ $OVS_PROCESS == 1 ]]; then exit 3; fi\nexec sleep 50\n'
    began = time.monotonic()
    process = self.start(checkout, member)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 3 and time.monotonic() - began < 15
    assert 'One process ended with status 3; stopping the others.' in err

  def test_a_notice_reaches_all(self, checkout: Checkout) -> None:
    member = (
      'trap \'echo "$OVS_PROCESS saved"; exit 75\' TERM\n'
      ': >"$FAKE/started$OVS_PROCESS"\nwhile :; do sleep 0.05; done\n'
    )
    process = self.start(checkout, member)
    wait_for(
      lambda: all((checkout.path.parent / f'started{i}').exists() for i in range(3))
    )
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 75
    assert sorted(out.splitlines()) == ['0 saved', '[1] 1 saved', '[2] 2 saved']
    assert 'stopping the others' not in err

  def test_a_number_is_needed(self, checkout: Checkout) -> None:
    for arguments in ((), ('two',), ('0',)):
      code, _, err = checkout.run('local_processes.sh', *arguments)
      assert code == 1 and err[0].startswith('launch: How many processes?')


def test_every_script_is_described() -> None:
  described = (ROOT / 'launch/README.md').read_text(encoding='utf-8')
  for script in (ROOT / 'launch').glob('*.sh'):
    assert script.name in described or script.name == 'setup.sh', script.name
