"""Simulated devices need a process of their own."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_a_step_runs_on_simulated_devices(tmp_path: pathlib.Path) -> None:
  output = tmp_path / 'report.json'
  command = ['--workload=clip_adapt_step', '--devices=4', '--mesh=2,2', '--batch=4']
  command += ['--set=preset=tiny', '--variants=package', '--repeats=1']
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ''}
  subprocess.run(
    [sys.executable, '-m', 'ovs_jax.bench', *command, f'--output={output}'],
    cwd=ROOT,
    env=environment,
    check=True,
    timeout=300,
  )
  report = json.loads(output.read_text())
  assert report['devices'] == 4 and report['options']['mesh'] == [2, 2]
  assert report['variants'][0]['items_per_second'] > 0
