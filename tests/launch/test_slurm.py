"""launch/slurm.sh under Slurm itself: limits, queueing again, going on, GPUs."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest
from fake_checkout import ROOT, Checkout
from real_slurm import Slurm, cluster
from test_processes import LONG, PYTHON, assert_equal_models, losses

pytestmark = pytest.mark.slow
GPUS = 2
ENDED = ('COMPLETED', 'FAILED', 'CANCELLED', 'TIMEOUT')


@pytest.fixture(scope='module')
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
  with cluster(tmp_path_factory.mktemp('slurm')) as started:
    yield started


@pytest.fixture
def slurm_of_gpus(tmp_path: pathlib.Path) -> Iterator[Slurm]:
  root = tmp_path / 'slurm'
  root.mkdir()
  with cluster(root, gpus=GPUS) as started:
    yield started


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> Checkout:
  """A checkout with the package itself, and this machine's PATH."""
  made = Checkout(tmp_path)
  made.run('run.sh')
  for name in ('ovs_jax', 'configs'):
    (made.path / name).symlink_to(ROOT / name)
  (made.path / '.venv/bin/python').write_text(PYTHON.format(executable=sys.executable))
  return made


class Job:
  """A job of launch/slurm.sh on two nodes, submitted as one would."""

  def __init__(self, slurm: Slurm, checkout: Checkout, *args: str, **env: str) -> None:
    """Submits it: flags of sbatch, then the script's arguments after '--'."""
    self.slurm = slurm
    self.run = checkout.path / 'runs/run'
    self.output = checkout.path / 'slurm.out'
    split = args.index('--')
    flags = ('--parsable', '--nodes=2', f'--output={self.output}', *args[:split])
    data = f'--config.dataset.data_dir={checkout.path.parent}/data'
    rest = (*args[split + 1 :], data, f'--workdir={self.run}')
    kept = ('JAX_', 'TF_', 'HOME', 'PATH')
    self.number = subprocess.run(
      ['sbatch', *flags, 'launch/slurm.sh', *rest],
      cwd=checkout.path,
      env={k: v for k, v in os.environ.items() if k.startswith(kept)}
      | slurm.env
      | {'XDG_CACHE_HOME': f'{checkout.path.parent}/cache'}
      | env,
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()

  def state(self) -> str:
    return self.slurm.job(self.number)['JobState']

  def restarts(self) -> int:
    return int(self.slurm.job(self.number)['Restarts'])

  def text(self) -> str:
    return self.output.read_text() if self.output.exists() else ''

  def steps(self) -> int:
    log = self.run / 'metrics.jsonl'
    return len(losses(self.run)) if log.exists() else 0

  def wait_for_steps(self, count: int) -> None:
    def enough() -> bool:
      assert self.state() not in ENDED, self.text()
      return self.steps() >= count

    self.slurm.wait_for(enough)

  def end(self) -> str:
    self.slurm.wait_for(lambda: self.state() in ENDED)
    return self.state()


def test_a_notice_saves_and_the_job_goes_on_to_its_end(
  slurm: Slurm, checkout: Checkout, tmp_path: pathlib.Path
) -> None:
  config = (*LONG, '--config.train.steps=40', '--config.train.save_every=1000')
  job = Job(slurm, checkout, '--', *config)
  job.wait_for_steps(3)
  slurm.call('scancel', '--signal=TERM', job.number)
  slurm.wait_for(lambda: job.restarts() == 1)
  assert 'of 40, which is saved; run the same command to go on' in job.text()
  assert 'launch: Saved; the job queues itself again.' in job.text()
  saved = job.steps()
  assert saved < 40
  assert job.end() == 'COMPLETED', job.text()
  assert job.text().count('2 process(es)') == 2  # each start, on both nodes
  stopped = job.run.rename(tmp_path / 'stopped')
  whole = Job(slurm, checkout, '--', *config)
  assert whole.end() == 'COMPLETED', whole.text()
  assert losses(stopped) == losses(whole.run)
  assert_equal_models(whole.run, stopped)


def test_at_its_limit_a_job_saves_and_starts_again(
  slurm: Slurm, checkout: Checkout
) -> None:
  config = (*LONG, '--config.train.steps=100000', '--config.train.save_every=100000')
  job = Job(slurm, checkout, '--time=2', '--signal=TERM@45', '--', *config)
  slurm.wait_for(lambda: job.restarts() == 1)
  slurm.wait_for(lambda: job.state() == 'PENDING')
  change = (f'JobId={job.number}', 'NumNodes=1', 'NumTasks=1', 'TimeLimit=60')
  slurm.call('scontrol', 'update', *change)
  assert 'run the same command to go on' in job.text()
  saved = job.steps()
  job.wait_for_steps(saved + 3)
  steps = [step for step, _ in losses(job.run)]
  assert steps == list(range(1, len(steps) + 1))  # nothing lost, nothing twice
  assert '1 process(es)' in job.text()  # the second start has one node
  # Who cancels a job means it.
  before = job.restarts()
  slurm.call('scancel', job.number)
  assert job.end() == 'CANCELLED'
  assert job.restarts() == before


def test_gpus_of_a_node_are_used_or_missed(
  slurm_of_gpus: Slurm, checkout: Checkout
) -> None:
  for name in ('cuda12', 'cuda13'):  # as if installed
    wanted = (checkout.path / '.venv/installed-run').read_text()
    wanted += (checkout.path / f'requirements/{name}.txt').read_text()
    (checkout.path / f'.venv/installed-{name}').write_text(wanted)
  config = ('--config=configs/scenes.py:clip:smoke',)
  flags = (f'--gpus-per-node={GPUS}', '--', *config)
  any_device = {'OVS_CUDA': '12', 'JAX_PLATFORMS': ''}
  lost = Job(slurm_of_gpus, checkout, *flags, **any_device)
  assert lost.end() == 'FAILED'
  assert f'Slurm gave this task {GPUS} GPUs, and JAX uses 1 cpu' in lost.text()
  devices = f'--xla_force_host_platform_device_count={GPUS}'
  found = Job(slurm_of_gpus, checkout, *flags, **any_device, XLA_FLAGS=devices)
  assert found.end() == 'COMPLETED', found.text()
  assert f'on {2 * GPUS} cpu as {2 * GPUS}x1' in found.text()
