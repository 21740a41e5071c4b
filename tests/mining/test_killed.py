"""A mining job that is killed by the system, again and again, and goes on."""

import pathlib
import signal
import subprocess
import sys

import pytest
import tiny_ovseg

from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.files import below
from ovs_jax.data import pairs, pipeline

TESTS = pathlib.Path(__file__).parents[1]
# The job of test_run.py in a process of its own, whose networks cost nothing. It kills
# itself at a call of that number: amid a chunk, amid the file of a chunk, amid a file
# that is copied into the data set, before one or all chunks are removed, or amid what
# describes the data set.
JOB = """
import os, pathlib, signal, sys
sys.path[:0] = [{root!r}, {tests!r}, {tests!r} + '/support', {here!r}]
import conftest, test_run
from configs import scenes
from ovs_jax.data import frames
from ovs_jax.mining import candidates, chunks, joining, miner, run
from ovs_jax.settings import Settings

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

class Writer(frames.tf.io.TFRecordWriter):
  def write(self, record):
    super().write(record)
    self.flush()
    passing('file')

def copy(source, target, keep, copy=joining.copy_records):
  left_over = target.with_name(f'.{{target.name}}.0.tmp')
  target.parent.mkdir(parents=True, exist_ok=True)
  left_over.write_bytes(source.read_bytes()[:99])
  passing('copy')
  left_over.unlink()
  copy(source, target, keep)

def before(name, function):
  def called(*args, **options):
    passing(name)
    return function(*args, **options)
  return called

candidates.propose_masks, miner.clip.encode_prompts = propose, test_run.embed
frames.tf.io.TFRecordWriter, joining.copy_records = Writer, copy
joining.pairs.write_text = before('text', joining.pairs.write_text)
joining.remove = before('remove', joining.remove)
config = scenes.mine({model!r})
config.dataset.update(variant='smoke', data_dir={data!r})
config.mining.update(chunk=4, backend='lexicon', min_score=-1.0)
config.mining.max_per_noun = 2
run.mine(Settings.of(config), pathlib.Path({output!r}))
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
  for moment, number, whole in (
    ('image', 12, range(3)),  # of eleven images, some of which others still work on
    ('file', 30, range(2, 8)),
    ('copy', 2, [8]),
    ('remove', 1, [8]),
    ('text', 2, [8]),
    ('remove', 1, [8]),
  ):
    assert run('killed', moment, number) == -signal.SIGKILL, moment
    assert len(list(chunks.glob('0*.json'))) in whole, moment
  assert (tmp_path / 'killed' / 'pairs' / 'datasheet.json').exists()
  assert chunks.exists()
  assert run('killed') == 0
  found = list(pipeline.examples(pairs.load(tmp_path / 'killed' / 'pairs'), 'train'))
  keys = {(pair['image_id'], pair['noun']) for pair in found}
  sheet = pairs.datasheet(tmp_path / 'killed' / 'pairs')
  assert len(keys) == len(found) == sheet['pairs'] > 32
  assert sheet['images'] == 32 and sheet['left_out']['pairs_by_noun_counts'] > 10
  # All bytes are the same, and nothing half-written stays.
  expected, got = (
    {name: (tmp_path / of / name).read_bytes() for name, _ in below(tmp_path / of)}
    for of in ('whole', 'killed')
  )
  assert expected == got
