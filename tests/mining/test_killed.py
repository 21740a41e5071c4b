"""A mining job that is killed by the system, again and again, and goes on."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny_ovseg

from ovs_jax.core.checkpoint import save_model
from ovs_jax.data import pairs, pipeline

TESTS = pathlib.Path(__file__).parents[1]
# The job of test_run.py in a process of its own, whose networks cost nothing.
JOB = """
import pathlib, sys, time
sys.path[:0] = [{root!r}, {tests!r}, {here!r}]
import conftest, test_run
from configs import scenes
from ovs_jax.mining import candidates, miner, run

def slowly(*args):
  time.sleep(0.3)
  return test_run.encode(*args)

candidates._encode, miner.clip.encode_prompts = slowly, test_run.embed
config = scenes.mine({model!r})
config.dataset.update(variant='smoke', data_dir={data!r})
config.mining.update(chunk=4, backend='lexicon', min_score=-1.0)
run.mine(config, pathlib.Path({output!r}))
"""


@pytest.mark.slow
def test_kill_nine_loses_and_doubles_nothing(
  data_dir: str, tmp_path: pathlib.Path
) -> None:
  save_model(tmp_path / 'model', {'clip': {'x': np.ones(1)}}, tiny_ovseg.STORED)

  def start(output: str) -> subprocess.Popen[bytes]:
    code = JOB.format(
      root=str(TESTS.parent),
      tests=str(TESTS),
      here=str(TESTS / 'mining'),
      model=str(tmp_path / 'model'),
      data=data_dir,
      output=str(tmp_path / output),
    )
    return subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.DEVNULL)

  assert start('whole').wait() == 0
  chunks = tmp_path / 'killed' / 'chunks'
  for wanted in (1, 4, 7):
    process = start('killed')
    while process.poll() is None and len(list(chunks.glob('0*.npz'))) < wanted:
      time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert wanted <= len(list(chunks.glob('0*.npz'))) < 8
    assert not (tmp_path / 'killed' / 'pairs').exists()
  assert start('killed').wait() == 0
  expected, got = (
    list(pipeline.examples(pairs.load(tmp_path / name / 'pairs'), 'train'))
    for name in ('whole', 'killed')
  )
  assert len(got) == len(expected) > 32
  for one, other in zip(expected, got, strict=True):
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])
  keys = {(pair['image_id'], pair['noun']) for pair in got}
  assert len(keys) == len(got)
