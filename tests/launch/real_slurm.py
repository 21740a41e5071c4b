"""Slurm itself, with two nodes on this machine: slurmctld, two slurmd and munged."""

import contextlib
import getpass
import os
import pathlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'scontrol', 'scancel')
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# A job that is queued again waits until its credentials have expired: 2 minutes.
AuthInfo=socket={root}/munge.socket,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
# What a container without cgroups and accounts can do.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
OverTimeLimit=0
{gres}
NodeName={host} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} {node}
NodeName={host}-b NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} {node}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
  """A cluster that runs; `env` makes its programs find it."""

  def __init__(self, root: pathlib.Path) -> None:
    self.root = root
    self.env = {'SLURM_CONF': str(root / 'slurm.conf')}

  def call(self, *command: str) -> str:
    return subprocess.run(
      command, env=os.environ | self.env, capture_output=True, text=True, check=True
    ).stdout.strip()

  def job(self, number: str) -> dict[str, str]:
    """What Slurm knows of a job: JobState, Restarts, ExitCode ..."""
    words = self.call('scontrol', 'show', 'job', number).split()
    return dict(word.split('=', 1) for word in words if '=' in word)

  def wait_for(self, condition: Callable[[], bool], timeout: float = 240) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
      logs = '\n'.join(log.read_text()[-2000:] for log in self.root.glob('*.log'))
      assert time.monotonic() < deadline, logs
      time.sleep(0.2)


@contextlib.contextmanager
def cluster(root: pathlib.Path, *, gpus: int = 0) -> Iterator[Slurm]:
  """Starts all daemons, with everything they write below `root`.

  Args:
    root: an empty directory.
    gpus: of a node; files stand for them.
  """
  missing = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
  if missing:
    pytest.fail(f'{missing[0]} not found: apt-get install slurm-wlm munge', False)
  slurm = Slurm(root)
  _configure(root, gpus)
  (root / 'state').mkdir()
  munged = ['munged', '--foreground', '--force', f'--socket={root}/munge.socket']
  munged += [f'--{name}-file={root}/munge.{name}' for name in ('key', 'pid', 'seed')]
  munged += [f'--log-file={root}/munged.log']
  host = socket.gethostname()
  daemons = [munged, ['slurmctld', '-D', '-c']]
  daemons += [['slurmd', '-D', '-N', name] for name in (host, f'{host}-b')]
  running = []
  try:
    for daemon in daemons:
      running.append(
        subprocess.Popen(
          daemon,
          env=os.environ | slurm.env | {'PATH': _path()},
          stdout=subprocess.DEVNULL,
          stderr=subprocess.DEVNULL,
        )
      )
      if daemon is munged:
        slurm.wait_for((root / 'munge.socket').exists, timeout=20)
    slurm.wait_for(lambda: _idle(slurm) == 2, timeout=60)
    yield slurm
  finally:
    try:
      _cancel_all(slurm)
    finally:
      for process in reversed(running):
        process.terminate()
        process.wait(timeout=60)


def _cancel_all(slurm: Slurm) -> None:
  """Ends what a failed test left: jobs would outlive their daemons."""
  with contextlib.suppress(subprocess.CalledProcessError):  # nobody listens
    slurm.call('scancel', f'--user={getpass.getuser()}')
    slurm.wait_for(lambda: not slurm.call('squeue', '--noheader'), timeout=60)


def _path() -> str:
  return f'{os.environ["PATH"]}:/usr/sbin:/sbin'


def _idle(slurm: Slurm) -> int:
  with contextlib.suppress(subprocess.CalledProcessError):  # not yet listening
    return slurm.call('sinfo', '--noheader', '--Node', '--states=idle').count('\n') + 1
  return 0


def _configure(root: pathlib.Path, gpus: int) -> None:
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
    for each in sockets:
      each.bind(('127.0.0.1', 0))
    ports = [each.getsockname()[1] for each in sockets]
  conf = CONF.format(
    root=root,
    host=socket.gethostname(),
    user=getpass.getuser(),
    ports=ports,
    gres='GresTypes=gpu' if gpus else '',
    node=f'CPUs=2 RealMemory=4000 State=UNKNOWN{f" Gres=gpu:{gpus}" if gpus else ""}',
  )
  (root / 'slurm.conf').write_text(conf)
  for i in range(gpus):
    (root / f'gpu{i}').touch()
  if gpus:
    (root / 'gres.conf').write_text(f'Name=gpu File={root}/gpu[0-{gpus - 1}]\n')
  (root / 'munge.key').write_bytes(os.urandom(1024))
  (root / 'munge.key').chmod(0o600)
