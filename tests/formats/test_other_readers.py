"""Readers that need another NumPy than ours, in an environment of their own."""

import contextlib
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from drawn_masks import NAMES, cases, draw_photo, found_in

from ovs_jax.formats import parse_formats, run
from ovs_jax.formats.found import Entry

READERS = ('supervision>=0.31', 'hotcoco>=1.3', 'label-studio-sdk>=2.1')
FORMATS = 'png,coco,yolo,labelme,labelstudio,npz'


def write_all(folder: pathlib.Path) -> None:
  """Writes all cases in all formats that these readers know."""
  formats, entries = parse_formats(FORMATS), {f: [] for f in FORMATS.split(',')}
  drawn = {name.replace(' ', '_'): labels for name, labels in cases().items()}
  generator = np.random.default_rng(1)
  drawn['large'] = np.kron(generator.integers(-1, 3, (30, 40)), np.ones((9, 7), int))
  for stem, labels in drawn.items():
    photo = draw_photo(folder / 'photos' / f'{stem}.png', labels.shape)
    found = found_in(labels, photo, stem=stem)
    with contextlib.ExitStack() as stack:
      run.write_into(stack, run.contents(formats, found, folder))
    for one in formats:
      record = one.record(found, parts=False)
      loaded = Entry(photo, photo.name, stem, found.size, lambda r=record: r)
      entries[one.name].append(loaded)
  for one in formats:
    run.finish([one], folder, entries[one.name], NAMES)


@pytest.mark.slow
@pytest.mark.network
def test_other_readers(tmp_path):
  python = os.environ.get('OVS_READERS_PYTHON')  # has the readers already
  if python is None:
    subprocess.run([sys.executable, '-m', 'venv', tmp_path / 'venv'], check=True)
    python = tmp_path / 'venv' / 'bin' / 'python'
    subprocess.run([python, '-m', 'pip', 'install', '-q', *READERS], check=True)
  write_all(tmp_path / 'written')
  script = pathlib.Path(__file__).with_name('other_readers.py')
  command = [python, script, tmp_path / 'written']
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr[-2000:]
  assert done.stdout.count('photos equal') == 6, done.stdout
