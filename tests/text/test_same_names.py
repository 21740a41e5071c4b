"""Names that CLIP cannot tell apart are one name, wherever they are given."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from ovs_jax.data.folder import survey
from ovs_jax.data.sources import SourceError
from ovs_jax.text.classes import parse_background, parse_classes, read_names
from ovs_jax.text.tokenizer import tokenize
from ovs_jax.text.vocabulary import parse_names

SAME = [
  ('Dog', 'dog'),
  ('caf\u00e9', 'cafe\u0301'),  # composed and decomposed
  ('\uff43\uff41\uff54', 'cat'),  # full width
  ('\u201cstop\u201d sign', '"stop" sign'),
  ('salt &amp; pepper', 'salt & pepper'),
]


@pytest.mark.parametrize(('one', 'other'), SAME)
def test_they_are_one_name(one: str, other: str, tmp_path: pathlib.Path) -> None:
  np.testing.assert_array_equal(tokenize([one]), tokenize([other]))
  with pytest.raises(ValueError, match='are the same for CLIP'):
    parse_names([one, other])
  with pytest.raises(ValueError, match='are the same for CLIP'):
    parse_classes({one: ['a'], other: ['b']})
  with pytest.raises(ValueError, match='both class names and background'):
    parse_background([other], parse_classes([one]))
  (tmp_path / 'names.txt').write_text(f'{one}\ngrass\n{other}\n', encoding='utf-8')
  with pytest.raises(ValueError, match='lines 1 and 3 of'):
    read_names(tmp_path / 'names.txt')
  # Among the words for a class the first one counts.
  assert parse_classes({'x': [one, 'y', other]}).words == ((one, 'y'),)


@pytest.mark.parametrize(('one', 'other'), SAME)
def test_of_a_folder_too(one: str, other: str, tmp_path: pathlib.Path) -> None:
  for name, mode in (('images', 'RGB'), ('masks', 'L')):
    (tmp_path / name).mkdir()
    Image.new(mode, (4, 4)).save(tmp_path / name / 'a.png')
  (tmp_path / 'names.txt').write_text(f'{one}\ngrass\n{other}\n', encoding='utf-8')
  with pytest.raises(SourceError, match='line 1 and line 3 have the name'):
    survey(tmp_path)


def test_others_are_two(tmp_path: pathlib.Path) -> None:
  assert parse_names(['cafe', 'caf\u00e9', 'cat']) == ('cafe', 'caf\u00e9', 'cat')
