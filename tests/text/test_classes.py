"""Names with synonyms: as arguments, in files, and what each rule embeds."""

import pathlib

import numpy as np
import pytest

from ovs_jax.text.classes import (
  Classes,
  check_synonyms,
  hints,
  parse_background,
  parse_classes,
  read_names,
)

CARS = {'car': ['car', 'automobile'], 'toilet': ['toilet', 'can', 'commode']}


@pytest.mark.parametrize(
  ('given', 'names', 'words'),
  [
    ('dog,  red ball', ('dog', 'red ball'), (('dog',), ('red ball',))),
    (['toilet, can'], ('toilet, can',), (('toilet, can',),)),
    (
      CARS,
      ('car', 'toilet'),
      (('car', 'automobile'), ('toilet', 'can', 'commode')),
    ),
    ({'pet': ['cat', 'dog']}, ('pet',), (('cat', 'dog'),)),  # only shown
    ({'pet': [], 'sky': ()}, ('pet', 'sky'), (('pet',), ('sky',))),
    ({'pet': [' a  cat', 'A cat', 'dog']}, ('pet',), (('a cat', 'dog'),)),
  ],
)
def test_parse(given, names, words):
  found = parse_classes(given)
  assert (found.names, found.words) == (names, words)
  assert parse_classes(found) is found


def test_texts_of_each_rule():
  classes = parse_classes(CARS)
  assert classes.texts('mean') == classes.texts('max') == classes.words
  assert classes.texts('paper') == (('car, automobile',), ('toilet, can, commode',))
  with pytest.raises(ValueError, match="rule for synonyms 'maks'; known: max, mean"):
    classes.texts('maks')
  assert check_synonyms('max') == 'max'


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ({}, 'no class names'),
    ({'car': 'automobile'}, r"are the string 'automobile'; put them in a list"),
    ({'car': ['auto', 3]}, r"synonyms of 'car' must be strings, got \[3\]"),
    ({'car': ['auto', ' ']}, "a synonym of 'car' is blank"),
    ({'car': ['auto'], 'Car': []}, "'car' and 'Car' are the same"),
    ({'': ['auto']}, 'no class names'),
  ],
)
def test_wrong_names(given, message):
  with pytest.raises(ValueError, match=message):
    parse_classes(given)


def test_background():
  dog = parse_classes('dog')
  assert parse_background('wall, floor', dog).names == ('wall', 'floor')
  for nothing in (None, [], {}, ()):
    assert len(parse_background(nothing, dog)) == 0
  both = dog + parse_background({'wall': ['wall', 'bricks']}, dog)
  assert both.names == ('dog', 'wall') and both.words[1] == ('wall', 'bricks')
  with pytest.raises(ValueError, match=r"\['Dog'\] are both class names and back"):
    parse_background('wall, Dog', dog)
  with pytest.raises(ValueError, match='no class names'):
    parse_background('', dog)


@pytest.fixture
def write(tmp_path):
  def call(data):
    path = tmp_path / 'names.txt'
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path

  return call


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('mark', ['', '\ufeff'])
def test_file(write, end, mark):
  lines = [
    '# what to look for',
    '',
    'dog',
    '  car :  automobile,motor   car  # and a comment',
    'toilet, can, commode',
    'C# book',
    'Straße: rue, 道路',
    '   ',
    'tree: Tree, oak',
  ]
  assert read_names(write(mark + end.join(lines))) == Classes(
    ('dog', 'car', 'toilet, can, commode', 'C# book', 'Straße', 'tree'),
    (
      ('dog',),
      ('car', 'automobile', 'motor car'),
      ('toilet, can, commode',),
      ('C# book',),
      ('Straße', 'rue', '道路'),
      ('tree', 'oak'),
    ),
  )


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    ('', 'has no names; write one per line'),
    ('# nothing\n\n', 'has no names'),
    ('dog\n\ncat\nDog: hound\n', "lines 1 and 4 of .* both name 'Dog'"),
    ('dog\n: hound\n', 'line 2 of .* no name before the colon'),
    ('dog:\n', 'line 1 of .* has a blank synonym'),
    ('dog: hound,, puppy\n', 'line 1 of .* has a blank synonym'),
    (b'dog\nstra\xdfe\n', r'is not UTF-8 \(line 2: byte 0xdf\); save it as UTF-8'),
    (b'\xff\xfed\0o\0g', 'is not UTF-8'),
    ('dog\tcat\nbird\n', 'line 1 of .* has a tab in it'),
    (b'dog\0\n', 'is not a text file'),
  ],
)
def test_wrong_files(write, data, message):
  with pytest.raises(ValueError, match=message):
    read_names(write(data))


def test_missing_file(tmp_path):
  with pytest.raises(FileNotFoundError, match='names file .*no.txt not found'):
    read_names(tmp_path / 'no.txt')
  with pytest.raises(ValueError, match='is no regular file'):
    read_names(tmp_path)


def test_a_large_file(write):
  count = 10_000
  found = read_names(write('\n'.join(f'name {i}: word {i}' for i in range(count))))
  assert len(found) == count and found.words[-1] == ('name 9999', 'word 9999')
  assert np.unique(found.names).size == count


@pytest.mark.parametrize(
  'text',
  [
    'cat\ndoor, double door\n',
    '1: cat\n2: door, double door\n',
    '0\tcat\n1\tdoor, double door\n',
    '7,cat\n\n8,door, double door\n',
    'id,name\n7,cat\n8,door, double door\n',
    'Index\tClass\n0\tcat\n1\tdoor, double door',
    '- cat\n- door, double door\n',
    '* cat\n* "door, double door"\n',
    '"cat"\n"door, double door"\n',
    'cat\r\ndoor, double door\r\n',
  ],
)
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_lists_of_other_programs(
  text: str, encoding: str, tmp_path: pathlib.Path
) -> None:
  (tmp_path / 'names.txt').write_bytes(text.encode(encoding))
  found = read_names(tmp_path / 'names.txt')
  assert found.names == ('cat', 'door, double door')


def test_numbers_and_dashes_of_some_lines_are_names(tmp_path: pathlib.Path) -> None:
  (tmp_path / 'names.txt').write_text('7: up\n- cat\n"a: b"\n')
  found = read_names(tmp_path / 'names.txt')
  assert found.names == ('7', '- cat', 'a: b')
  assert found.words == (('7', 'up'), ('- cat',), ('a: b',))


@pytest.mark.parametrize(
  ('name', 'hint'),
  [
    ('cat; dog', 'separate names with commas: "cat, dog"'),
    ('cat.dog. bird.', 'separate names with commas: "cat, dog, bird"'),
    ('cat|dog', 'separate names with commas: "cat, dog"'),
    ('traffic_light', "'traffic light' is a better name"),
    ('собака', 'no Latin letter'),
    ('猫', 'no Latin letter'),
  ],
)
def test_hints(name: str, hint: str) -> None:
  (found,) = hints(['dog', name, 'door, double door', 'café', "child's toy"])
  assert found.startswith(repr(name))
  assert hint in found


def test_names_with_commas_stand_in_quotes() -> None:
  asked = parse_classes('"door, double door", wall , "sky"')
  assert asked.names == ('door, double door', 'wall', 'sky')
  for wrong in ('"door, wall', '"door" wall, sky'):
    with pytest.raises(ValueError, match='the quotes in .* do not match'):
      parse_classes(wrong)
