"""Scripts for GPUs, Slurm and Cloud TPU, with programs that only pretend."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
from fake_checkout import FAKE_PYTHON, ROOT, Checkout, wait_for

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


def environment(checkout: Checkout, script: str, **env: str) -> dict[str, str]:
  """What the program finds in its environment."""
  python = FAKE_PYTHON.replace('echo "in $PWD"', 'env; exit')
  (checkout.path / '.venv/bin/python').write_text(
    python.format(version='3.12', no_venv=0)
  )
  add(checkout, 'nvidia-smi', 'echo 580.65.06')
  code, out, err = checkout.run(script, **env)
  assert code == 0, err
  return dict(line.split('=', 1) for line in out if '=' in line)


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

  def test_libraries_that_are_missing_are_one_sentence(
    self, checkout: Checkout
  ) -> None:
    missing = 'ERROR: No matching distribution found for jax-cuda13-plugin==9'
    checkout.fake_pip(f'echo "{missing}" >&2; exit 1')
    code, out, err = checkout.run('gpu_node.sh', OVS_CUDA='13')
    assert (code, out) == (1, [])
    assert err[-1] == (
      "launch: The package index has no jax-cuda13-plugin==9 for this machine's Python "
      '3.12: set OVS_PYTHON to another version (3.11 to 3.13 are tested), or check '
      "pip's index settings."
    )

  def test_settings_are_made_and_the_users_stay(self, checkout: Checkout) -> None:
    settings = environment(checkout, 'gpu_node.sh')
    assert settings['XLA_PYTHON_CLIENT_MEM_FRACTION'] == '0.9'
    assert settings['NCCL_DEBUG'] == 'WARN'
    assert 'NCCL_SOCKET_IFNAME' not in settings  # one node
    mine = {'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.5', 'NCCL_DEBUG': 'INFO'}
    flag = '--xla_gpu_enable_latency_hiding_scheduler=false'
    chosen = environment(checkout, 'gpu_node.sh', XLA_FLAGS=flag, **mine)
    assert mine.items() <= chosen.items()
    assert chosen['XLA_FLAGS'] == f'{settings["XLA_FLAGS"]} {flag}'

  def test_jaxlib_knows_the_flags_and_takes_the_last(self, checkout: Checkout) -> None:
    count = '--xla_force_host_platform_device_count='
    ours = environment(checkout, 'gpu_node.sh', XLA_FLAGS=f'{count}2 {count}3')
    program = 'import jax; print(jax.device_count())'
    process = subprocess.run(
      [sys.executable, '-c', program],
      env=os.environ | {'XLA_FLAGS': ours['XLA_FLAGS'], 'JAX_PLATFORMS': 'cpu'},
      capture_output=True,
      text=True,
    )
    assert process.stdout == '3\n', process.stderr  # unknown flags end the process

  def test_no_driver_is_one_sentence(self, checkout: Checkout) -> None:
    code, out, err = checkout.run('gpu_node.sh')
    assert (code, out) == (1, [])
    assert len(err) == 1 and err[0].startswith('launch: nvidia-smi does not run')


# As the real one does: SIGTERM to srun kills its tasks, and what scancel or the limit
# sends goes to the tasks. srun ends with the highest of their statuses.
SRUN = """
while [[ $1 == --* ]]; do shift; done
"$@" & task=$!
echo $task >"$FAKE/task"
trap 'echo "srun: forcing job termination" >&2; kill -KILL $task' TERM
status=0
wait $task || status=$?
while kill -0 $task 2>/dev/null; do wait $task || status=$?; done
exit $status
"""
TASK = """#!/bin/bash
case "$1" in
  -c) echo 3.12 ;;
  *)
    trap 'exit 75' TERM
    printf '<%s>\n' "$@"
    : >"$FAKE/started"
    [[ ! -e $FAKE/long ]] || for ((i = 0; i < 400; i++)); do sleep 0.05; done
    exit "${FAKE_EXIT:-0}"
    ;;
esac
"""
JOB = {'SLURM_JOB_ID': '7', 'SLURM_CPUS_ON_NODE': '64', 'SLURM_JOB_NUM_NODES': '4'}


class TestSlurm:
  @pytest.fixture(autouse=True)
  def programs(self, checkout: Checkout) -> None:
    add(checkout, 'srun', SRUN)
    add(checkout, 'scontrol', '')
    (checkout.path / '.venv/bin/python').write_text(TASK)

  def run(self, checkout: Checkout, **env: str) -> tuple[int, list[str], list[str]]:
    place = {'SLURM_SUBMIT_DIR': str(checkout.path), **JOB}
    return checkout.run('slurm.sh', '--config=a b.py', **place, **env)

  def test_starts_a_task_with_all_cores_on_every_node(self, checkout: Checkout) -> None:
    code, out, err = self.run(checkout)
    assert (code, err) == (0, [])
    assert out == ['<-m>', '<ovs_jax.main>', '<--multihost>', '<--config=a b.py>']
    (called,) = checkout.read('srun.log')
    assert called.startswith(
      'srun --ntasks=4 --ntasks-per-node=1 --cpus-per-task=64 --kill-on-bad-exit=0 '
      '--wait=60 bash'
    )

  @pytest.mark.parametrize('name', ['SLURM_CPUS_PER_TASK', 'SRUN_CPUS_PER_TASK'])
  def test_fewer_cores_may_be_asked_for(self, checkout: Checkout, name: str) -> None:
    self.run(checkout, **{name: '12'})
    assert '--cpus-per-task=12 ' in checkout.read('srun.log')[0]

  def test_what_was_saved_is_queued_again(self, checkout: Checkout) -> None:
    code, _, err = self.run(checkout, FAKE_EXIT='75')
    assert code == 0 and err == ['launch: Saved; the job queues itself again.']
    assert checkout.read('scontrol.log') == ['scontrol requeue 7']

  def test_failures_are_not(self, checkout: Checkout) -> None:
    assert self.run(checkout, FAKE_EXIT='2')[0] == 2
    assert checkout.read('scontrol.log') == []

  def test_the_notice_reaches_the_tasks(self, checkout: Checkout) -> None:
    """What #SBATCH --signal asks for is sent to whom Slurm would send it."""
    (checkout.path.parent / 'long').touch()
    place = {'SLURM_SUBMIT_DIR': str(checkout.path), **JOB}
    process = checkout.start('slurm.sh', '--config=x.py', **place)
    folder = checkout.path.parent
    wait_for((folder / 'started').exists)
    wait_for(lambda: (folder / 'task').exists() and (folder / 'task').read_text() != '')
    script = (checkout.path / 'launch/slurm.sh').read_text()
    (asked,) = re.findall(r'^#SBATCH --signal=(\S+)$', script, re.MULTILINE)
    if asked.startswith('B:'):
      process.send_signal(signal.SIGTERM)
    else:
      os.kill(int(checkout.read('task')[0]), signal.SIGTERM)
    assert asked.endswith('TERM@180')
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0 and 'queues itself again' in err
    assert checkout.read('scontrol.log') == ['scontrol requeue 7']

  def test_gpus_get_their_libraries_and_settings(self, checkout: Checkout) -> None:
    add(checkout, 'nvidia-smi', 'echo 535.183.01')
    (checkout.bin / 'srun').write_text('#!/bin/bash\nenv\n')
    (checkout.path / '.venv/bin/python').write_text(
      FAKE_PYTHON.format(version='3.12', no_venv=0)
    )
    code, out, _ = self.run(checkout, SLURM_GPUS_ON_NODE='8')
    assert code == 0 and 'requirements/cuda12.txt' in checkout.read('pip.log')[0]
    assert 'NCCL_SOCKET_IFNAME=^lo,docker,virbr,veth' in out
    assert any(x.startswith('XLA_FLAGS=--xla_gpu_enable_latency') for x in out)

  def test_other_directories_are_refused(self, checkout: Checkout) -> None:
    code, _, err = checkout.run('slurm.sh', 'x', SLURM_SUBMIT_DIR=str(checkout.bin))
    assert code == 1 and 'is not the root of ovs_jax: run sbatch there' in err[0]


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


SOURCED = ('setup.sh', 'gpus.sh')


def test_every_script_is_described() -> None:
  described = (ROOT / 'launch/README.md').read_text(encoding='utf-8')
  for script in (ROOT / 'launch').glob('*.sh'):
    assert script.name in described or script.name in SOURCED
