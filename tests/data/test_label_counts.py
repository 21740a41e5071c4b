"""The number of labels that a data set asks for."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from ovs_jax.data import prepare
from ovs_jax.data.label_counts import LabelCounts, count


def test_counted_by_hand(tmp_path: pathlib.Path) -> None:
  maps = [
    np.array([[0, 0], [1, 255]], np.uint8),  # two classes; 255 is void
    np.array([[3, 3]], np.uint8),
    np.array([[255, 2**16 - 1, 7, 8]], np.uint16),  # there it is a class
    np.full((2, 2), 255, np.uint8),
  ]
  found = count(maps)
  np.testing.assert_array_equal(found.pictures, [1, 1, 1, 1])  # 0, 1, 2 and 3 classes
  assert (found.mean, found.deviation) == (1.5, np.sqrt(1.25))
  assert found.labels == 4  # 1.5 + 2 * 1.118 = 3.74
  found.draw(tmp_path / 'a.png', 'four')
  with Image.open(tmp_path / 'a.png') as image:
    assert image.size == (720, 420)


def test_in_words() -> None:
  told = str(LabelCounts(np.array([0, 2, 8])))
  assert told.splitlines()[1:4] == [
    '      0         0  ',
    '      1         2  ' + 10 * '#',
    '      2         8  ' + 40 * '#',
  ]
  assert '10 pictures, 1.80 classes on average, deviation 0.40' in told
  assert 'k = 3, two deviations above; 100.0% of the pictures show no more' in told


def test_of_a_folder(
  tmp_path: pathlib.Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
) -> None:
  monkeypatch.chdir(tmp_path)
  for kind in ('images', 'masks'):
    (tmp_path / 'mine' / kind).mkdir(parents=True)
  (tmp_path / 'mine' / 'names.txt').write_text('cat\ndog\n')
  for name, labels in (('a', [0, 1]), ('b', [0, 0])):
    Image.new('RGB', (2, 1)).save(tmp_path / 'mine' / 'images' / f'{name}.png')
    label = Image.fromarray(np.array([labels], np.uint8))
    label.save(tmp_path / 'mine' / 'masks' / f'{name}.png')
  line = ['--dataset=folder', f'--source={tmp_path / "mine"}', '--label-counts']
  line += [f'--data_dir={tmp_path / "data"}']
  assert prepare.main([*line, '--split=val']) == 0
  assert '2 pictures, 1.50 classes on average' in capsys.readouterr().out
  assert (tmp_path / 'label_counts.png').is_file()
  assert prepare.main(line) == 2  # it has no split `train`
  assert "unknown split 'train'; known: val" in capsys.readouterr().err
  captions = {'image': 'a.png', 'captions': ['a cat']}
  (tmp_path / 'words' / 'images').mkdir(parents=True)
  Image.new('RGB', (2, 1)).save(tmp_path / 'words' / 'images' / 'a.png')
  (tmp_path / 'words' / 'captions.jsonl').write_text(json.dumps(captions))
  line[1] = f'--source={tmp_path / "words"}'
  assert prepare.main([*line, '--split=val']) == 2
  assert 'has no label maps, only captions' in capsys.readouterr().err
