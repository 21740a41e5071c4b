"""As many pairs as COCO gives, with tiny crops, through the job: memory and disk.

    python tests/mining/test_real_counts.py IMAGES PAIRS_OF_AN_IMAGE

prints what one number of images takes, as JSON.
"""

import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ovs_jax.settings import Settings

ROOT = pathlib.Path(__file__).parents[2]
IMAGES = 118_287  # of COCO's train2017
PAIRS = 442_323  # of 3.74 an image


class Images:
  """Stands for the records of a data set, which nobody reads."""

  def __init__(self, count: int) -> None:
    """Takes their number."""
    self.count = count

  def __len__(self) -> int:
    return self.count


class Watch:
  """The most bytes that lay in a folder at any time, looked at now and then."""

  def __init__(self, folder: pathlib.Path) -> None:
    """Looks from now on."""
    self.folder, self.most, self._ends = folder, 0, threading.Event()
    self._thread = threading.Thread(target=self._look)
    self._thread.start()

  def _look(self) -> None:
    while not self._ends.wait(0.5):
      self.most = max(self.most, self.now())

  def now(self) -> int:
    """Returns how many lie there, with whole blocks."""
    total = 0
    for path in self.folder.rglob('*'):
      try:
        total += 512 * path.lstat().st_blocks
      except FileNotFoundError:  # moved since
        continue
    return total

  def end(self) -> None:
    """Looks no more."""
    self._ends.set()
    self._thread.join()


def drawn(config: Any, images: int, each: float) -> Iterator[tuple[int, Any, Any]]:
  """Yields chunks as mining does, of few pictures and many nouns."""
  from drawn_chunks import pair

  from ovs_jax.mining import chunks

  generator = np.random.default_rng(0)
  pictures = [pair(i, ('', '', 0.0), side=32) for i in range(16)]
  c = config.mining
  for i in range(-(-images // c.chunk)):
    found = []
    first, last = i * c.chunk, min((i + 1) * c.chunk, images)
    for image in range(first, last):
      for k in range(int(each + generator.random())):
        own = {
          'noun': f'noun {min(int(generator.zipf(1.2)), 12_000)}',
          'image_id': f'{image:012d}',
          'score': generator.random(),
        }
        own = {**pictures[(image + k) % 16], **own}
        found.append(chunks.store(own, shortest=0, crop_format='png'))
    yield i, found, chunks.Notes(images=last - first, captions=last - first)


def measured(images: int, each: float, data_dir: str) -> dict[str, Any]:
  """Mines so many images, most chunks losing pairs at last; returns the figures."""
  from configs import scenes
  from ovs_jax.data import pairs
  from ovs_jax.mining import run

  config = scenes.mine('')
  config.dataset.update(variant='smoke', data_dir=data_dir)
  config.mining.update(masks='truth', nouns='classes', disk_megabytes=1)
  config.mining.max_per_noun = images // 4
  run.Shards = lambda builders, split: Images(images)
  run._mined = lambda config, *_: drawn(config, images, each)
  join = run._finish
  times: dict[str, float] = {}
  mined: dict[str, int] = {}

  def finish(*args: Any) -> None:
    times['joining'], mined['disk'] = time.time(), watch.now()
    join(*args)

  run._finish = finish
  with tempfile.TemporaryDirectory() as name:
    workdir = pathlib.Path(name)
    run.load_dataset(Settings.of(config).dataset)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, watch = time.time(), Watch(workdir)
    sheet = run.mine(Settings.of(config), workdir)
    ended = time.time()
    watch.end()
    files = [p for p in workdir.rglob('*') if p.is_file()]
    left_out = sheet['left_out']['pairs_by_noun_counts']
    assert len(pairs.nouns(workdir / 'pairs')) == sheet['pairs']
    return {
      'pairs': sheet['pairs'] + left_out,
      'left_out': left_out,
      'files': len(files),
      'megabytes_at_start': before // 1024,
      'megabytes_at_most': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
      'disk_of_all': mined['disk'] >> 20,
      'disk_at_most': watch.most >> 20,
      'disk_of_data': watch.now() >> 20,
      'seconds_of_mining': times['joining'] - began,
      'seconds_of_joining': ended - times['joining'],
    }


def in_a_process(images: int, data_dir: str) -> dict[str, Any]:
  """Returns the figures of a process of its own."""
  command = [sys.executable, __file__, f'{images}', f'{PAIRS / IMAGES}', data_dir]
  done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_memory_is_that_of_a_hundredth(data_dir: str) -> None:
  small = in_a_process(IMAGES // 100, data_dir)
  whole = in_a_process(IMAGES, data_dir)
  print(small, whole)
  assert small['pairs'] == pytest.approx(PAIRS / 100, rel=0.05)
  assert whole['pairs'] == pytest.approx(PAIRS, rel=0.01)
  assert whole['left_out'] > 1000
  assert whole['megabytes_at_most'] < small['megabytes_at_most'] + 250
  assert whole['megabytes_at_most'] < 1500
  assert whole['disk_at_most'] < 1.05 * whole['disk_of_all']


if __name__ == '__main__':
  sys.path[:0] = [str(ROOT), str(ROOT / 'tests' / 'support')]
  data = sys.argv[3] if len(sys.argv) > 3 else '~/.cache/ovs_jax/data'
  print(json.dumps(measured(int(sys.argv[1]), float(sys.argv[2]), data)))
