"""Vocabularies of the package, their format, and names that users type."""

import pytest

from ovs_jax.text import vocabulary

TABLE = (
  'train_id\tsource_value\tname\tkind\tsplit\tsynonyms\n'
  '0\t7\tred circle\tthing\tseen\tcrimson circle|red ball\n'
  '1\t9\tgrass\tstuff\tunseen\t\n'
)


def test_parse():
  v = vocabulary.parse(TABLE, 'two')
  assert (v.name, len(v)) == ('two', 2)
  assert v.names == ('red circle', 'grass')
  assert v.source_values == (7, 9)
  assert v.kinds == ('thing', 'stuff')
  assert v.splits == ('seen', 'unseen')
  assert v.synonyms == (('crimson circle', 'red ball'), ())


def test_optional_columns_may_be_absent_and_names_contain_commas_and_quotes():
  text = 'train_id\tsource_value\timages\tname\n0\t1\t5\tcan, "commode"\n'
  v = vocabulary.parse(text, 'one')
  assert v.names == ('can, "commode"',)
  assert (v.kinds, v.splits, v.synonyms) == (('',), ('',), ((),))


def test_sha256_depends_on_the_classes_and_their_order_alone():
  digest = vocabulary.parse(TABLE, 'a').sha256
  assert len(digest) == 64
  assert digest == vocabulary.parse(TABLE, 'b').sha256
  for old, new in (('grass', 'lawn'), ('\t9\t', '\t8\t'), ('unseen', 'seen')):
    assert digest != vocabulary.parse(TABLE.replace(old, new), 'a').sha256


@pytest.mark.parametrize('name', sorted(vocabulary.known()))
def test_every_vocabulary_of_the_package_loads(name):
  v = vocabulary.load(name)
  assert v.name == name
  assert len(v) == len(set(v.names)) > 1
  assert v is vocabulary.load(name)


def test_scenes():
  v = vocabulary.load('scenes')
  assert len(v) == 72
  assert v.splits.count('seen') == 46
  assert v.kinds.count('stuff') == 8
  assert 'red circle' in v.names


def test_unknown_vocabulary():
  with pytest.raises(ValueError, match="known: .*scenes.* Did you mean 'scenes'"):
    vocabulary.load('scene')


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('train_id,source_value,name\n', 'lacks the columns.*tabs'),
    ('train_id\tsource_value\tname\n', 'no classes'),
    ('train_id\tsource_value\tname\n1\t1\tsky\n', "train_id '1', expected 0"),
    ('train_id\tsource_value\tname\n0\tx\tsky\n', "source_value 'x'"),
    ('train_id\tsource_value\tname\n0\t1\t \n', 'no name'),
    ('train_id\tsource_value\tname\n0\t1\ta\n1\t2\ta\n', 'classes 0 and 1'),
    ('train_id\tsource_value\tname\n0\t1\n', 'no name'),
    (TABLE.replace('unseen', 'hidden'), "split 'hidden'"),
  ],
)
def test_wrong_tables(text, message):
  with pytest.raises(ValueError, match=message):
    vocabulary.parse(text, 'wrong')


@pytest.mark.parametrize(
  ('given', 'names'),
  [
    ('grass', ('grass',)),
    (' red  ball,\n grass ', ('red ball', 'grass')),
    (['toilet, can', ' Sky '], ('toilet, can', 'Sky')),
    ((name for name in ('a', 'b')), ('a', 'b')),
  ],
)
def test_parse_names(given, names):
  assert vocabulary.parse_names(given) == names


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ('', 'no class names'),
    (' , ', 'no class names'),
    ([], 'no class names'),
    ('a, , b', 'class name 2 of 3.*blank'),
    ('a, b,', 'class name 3 of 3.*blank'),
    ('Grass, red ball, grass', "'Grass' and 'grass' are the same"),
    (['red ball', 'red  ball'], 'are the same'),
    (['a', 3], r'must be strings, got \[3\]'),
  ],
)
def test_wrong_names(given, message):
  with pytest.raises(ValueError, match=message):
    vocabulary.parse_names(given)
