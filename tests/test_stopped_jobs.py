"""SIGTERM to real mining and evaluation jobs: status 75, and on where they were."""

import json
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tiny_ovseg
import tiny_prompted

from configs import scenes
from ovs_jax.core.checkpoint import save_model
from ovs_jax.data import pairs, pipeline
from ovs_jax.mining import run
from ovs_jax.settings import Settings

ROOT = pathlib.Path(__file__).parents[1]
# The command itself, which tells itself to stop when it comes to an item of a number.
JOB = """
import os, signal, time
from ovs_jax import main
from ovs_jax.core.workers import Workers

left = int(os.environ['STOP_AT'])

def submit(self, task, item, original=Workers.submit):
  global left
  left -= 1
  if left == 0:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(3)  # the notice goes through the coordinator; the work left is short
  return original(self, task, item)

Workers.submit = submit
main.start()
"""


def start(flags: list[str], processes: int, stop_at: int) -> list[int]:
  """Runs a job whose last process is told to stop; returns the statuses."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  running = []
  for i in range(processes):
    place = {'OVS_COORDINATOR': address, 'OVS_PROCESSES': f'{processes}'}
    place |= {'OVS_PROCESS': f'{i}'}
    more = ['--multihost'] if processes > 1 else []
    one = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count=1'
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': one}
    environment |= place if processes > 1 else {}
    environment['STOP_AT'] = f'{stop_at if i == processes - 1 else 0}'
    running.append(
      subprocess.Popen(
        [sys.executable, '-c', JOB, *flags, *more],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
      )
    )
  said = [process.communicate(timeout=500)[0] for process in running]
  statuses = [process.returncode for process in running]
  assert all(status in (0, 75) for status in statuses), said
  return statuses


def broken_and_whole(
  flags: list[str], directory: pathlib.Path, processes: int, stop_at: int
) -> tuple[pathlib.Path, pathlib.Path]:
  """Stops a job, goes on with it, and does another at once; returns what they left."""
  broken, whole = directory / 'broken', directory / 'whole'
  of_broken = [*flags, f'--workdir={broken}']
  assert start(of_broken, processes, stop_at) == [75] * processes
  kept = [*broken.rglob('counted_*'), *broken.glob('chunks/0*.json')]
  assert kept, 'nothing was kept'
  assert start(of_broken, processes, 0) == [0] * processes
  assert start([*flags, f'--workdir={whole}'], processes, 0) == [0] * processes
  for path in (broken, whole):
    assert not [*path.rglob('counted_*'), *path.rglob('chunks'), *path.rglob('*.tmp*')]
  return broken, whole


def mining(data_dir: str) -> list[str]:
  return [
    '--config=configs/scenes.py:mine',
    f'--config.dataset.data_dir={data_dir}',
    '--config.dataset.variant=smoke',
    '--config.mining.masks=truth',
    '--config.mining.nouns=classes',
    '--config.mining.chunk=4',
  ]


def same_pairs(broken: pathlib.Path, whole: pathlib.Path) -> None:
  found, expected = (
    list(pipeline.examples(pairs.load(path / 'pairs'), 'train'))
    for path in (broken, whole)
  )
  assert len(found) == len(expected) > 32
  for one, other in zip(found, expected, strict=True):
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])


def test_a_stopped_mining_job_goes_on(data_dir: str, tmp_path: pathlib.Path) -> None:
  broken, whole = tmp_path / 'broken', tmp_path / 'whole'
  assert start([*mining(data_dir), f'--workdir={broken}'], 1, 10) == [75]
  kept = [path.stem for path in sorted((broken / 'chunks').glob('0*.json'))]
  assert kept == [f'{i:06d}' for i in range(len(kept))] and 1 <= len(kept) < 8
  config = scenes.get_config('mine')
  config.dataset.update(data_dir=data_dir, variant='smoke')
  config.mining.update(masks='truth', nouns='classes', chunk=4)
  for path in (broken, whole):
    run.mine(Settings.of(config), path)
  same_pairs(broken, whole)


@pytest.mark.slow
def test_two_mining_processes_stop_together(
  data_dir: str, tmp_path: pathlib.Path
) -> None:
  same_pairs(*broken_and_whole(mining(data_dir), tmp_path, 2, 6))


def evaluation(directory: pathlib.Path) -> list[str]:
  save_model(directory / 'ovseg', tiny_ovseg.draw_params(), tiny_ovseg.STORED)
  return [
    '--config=configs/scenes.py:evaluate',
    f'--config.eval.checkpoint={directory}/ovseg',
  ]


def benchmark(directory: pathlib.Path) -> list[str]:
  save_model(directory / 'ovseg', tiny_ovseg.draw_params(), tiny_ovseg.STORED)
  (directory / 'config.py').write_text(
    'from configs import common\n'
    'def get_config():\n'
    "  config = common.base('stopped', 'benchmark')\n"
    "  config.suite.update(datasets=('scenes/smoke:val',), training='scenes')\n"
    '  config.suite.update(distractors=(10,), bootstrap=0, sheet=1)\n'
    "  return common.finish(config, '')\n"
  )
  return [
    f'--config={directory}/config.py',
    f'--config.eval.checkpoint={directory}/ovseg',
  ]


def systems(directory: pathlib.Path) -> list[str]:
  made = tiny_prompted.save(directory)
  return [
    '--config=configs/scenes.py:evaluate_coseg',
    f'--config.systems.clipseg={made["clipseg"]}',
    f'--config.systems.coseg.prefix={made["coseg"]}',
    '--config.systems.coseg.cross=',
    '--config.systems.label_clip=',
    '--config.systems.resamples=10',
  ]


def compared(path: pathlib.Path) -> dict[str, Any]:
  """All scores and counts below a directory, without how long they took."""
  found: dict[str, Any] = {}
  for file in sorted([*path.rglob('*.json'), *path.rglob('*.npz')]):
    name = str(file.relative_to(path))
    if file.suffix == '.npz':
      with np.load(file) as arrays:
        found |= {f'{name}: {key}': arrays[key] for key in arrays}
    elif file.name != 'config.json':
      found[name] = json.loads(file.read_text(), object_hook=_without_seconds)
  return found


def _without_seconds(node: dict[str, Any]) -> dict[str, Any]:
  return {k: v for k, v in node.items() if k not in ('seconds', 'identity')}


@pytest.mark.slow
@pytest.mark.parametrize('processes', [1, 2])
@pytest.mark.parametrize('job', [evaluation, benchmark, systems])
def test_stopped_evaluations_go_on(
  job: Callable[[pathlib.Path], list[str]],
  processes: int,
  data_dir: str,
  tmp_path: pathlib.Path,
) -> None:
  flags = [
    *job(tmp_path),
    f'--config.dataset.data_dir={data_dir}',
    '--config.dataset.variant=smoke',
    '--config.optimize_programs=False',
    '--config.eval.save_every=4',
  ]
  found = broken_and_whole(flags, tmp_path, processes, 3)
  broken, whole = (compared(path) for path in found)
  assert broken.keys() == whole.keys() and len(whole) > 3
  for name in whole:
    np.testing.assert_equal(broken[name], whole[name], err_msg=name)
