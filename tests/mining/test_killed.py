"""A mining job that is killed by the system, again and again, and goes on."""

import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
import tiny_ovseg

from ovs_jax.core.checkpoint import save_model
from ovs_jax.data import pairs, pipeline

TESTS = pathlib.Path(__file__).parents[1]
# The job of test_run.py in a process of its own, whose networks cost nothing. It kills
# itself at a call of that number: amid a chunk, amid the file of a chunk, or amid the
# data set.
JOB = """
import os, pathlib, signal, sys
sys.path[:0] = [{root!r}, {tests!r}, {tests!r} + '/support', {here!r}]
import conftest, test_run
from configs import scenes
from ovs_jax.mining import candidates, chunks, miner, run

moment, left = {moment!r}, {number!r}

def passing(name):
  global left
  if name == moment:
    left -= 1
    if not left:
      os.kill(os.getpid(), signal.SIGKILL)

def propose(*args):
  passing('image')
  return test_run.propose(*args)

def savez(file, savez=chunks.np.savez, **arrays):
  savez(file, **arrays)
  whole = file.read_bytes()
  file.write_bytes(whole[:len(whole) // 2])
  passing('file')
  file.write_bytes(whole)

def pair(*args, pair=chunks.to_pair):
  passing('data set')
  return pair(*args)

candidates.propose_masks, miner.clip.encode_prompts = propose, test_run.embed
chunks.np.savez, chunks.to_pair = savez, pair
config = scenes.mine({model!r})
config.dataset.update(variant='smoke', data_dir={data!r})
config.mining.update(chunk=4, backend='lexicon', min_score=-1.0)
run.mine(config, pathlib.Path({output!r}))
"""


@pytest.mark.slow
def test_kill_nine_loses_and_doubles_nothing(
  data_dir: str, tmp_path: pathlib.Path
) -> None:
  save_model(tmp_path / 'model', tiny_ovseg.draw_params(), tiny_ovseg.STORED)

  def run(output: str, moment: str = '', number: int = 0) -> int:
    code = JOB.format(
      root=str(TESTS.parent),
      tests=str(TESTS),
      here=str(TESTS / 'mining'),
      model=str(tmp_path / 'model'),
      data=data_dir,
      output=str(tmp_path / output),
      moment=moment,
      number=number,
    )
    done = subprocess.run([sys.executable, '-c', code], stderr=subprocess.DEVNULL)
    return done.returncode

  assert run('whole') == 0
  chunks = tmp_path / 'killed' / 'chunks'
  finished = 0
  for moment, number in (('image', 12), ('file', 3), ('data set', 20)):
    assert run('killed', moment, number) == -signal.SIGKILL
    before, finished = finished, len(list(chunks.glob('0*.npz')))
    if moment == 'image':  # of eleven images, some of which others still work on
      assert finished <= 2
    else:  # two more whole files, then all of them
      assert finished == (before + 2 if moment == 'file' else 8)
    assert not (tmp_path / 'killed' / 'pairs').exists()
  assert run('killed') == 0
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
  sheets = [pairs.datasheet(tmp_path / name / 'pairs') for name in ('whole', 'killed')]
  assert sheets[0] == sheets[1] and sheets[0]['images'] == 32
  # Nor does anything half-written stay.
  names = [
    sorted(p.name for p in (tmp_path / n).iterdir()) for n in ('whole', 'killed')
  ]
  assert names[0] == names[1]
