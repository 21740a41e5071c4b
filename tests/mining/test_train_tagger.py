"""A tagger trained in-process from a few sentences of our own."""

import itertools
import pathlib

import pytest

from ovs_jax.mining import train_tagger
from ovs_jax.mining.nouns import load_extractor

NOUNS = ('dog', 'cat', 'table', 'bench', 'ball', 'man', 'girl', 'car')
VERBS = ('sees', 'holds', 'likes')
OTHER = {'the': 'DET', 'a': 'DET', 'red': 'ADJ', 'small': 'ADJ', '.': 'PUNCT'}


def treebank(path: pathlib.Path) -> str:
  """Writes every simple sentence of a few words."""
  lines = []
  for (one, two), verb in itertools.product(itertools.permutations(NOUNS, 2), VERBS):
    words = ['the', 'small', one, verb, 'a', 'red', two, '.']
    for i, word in enumerate(words, start=1):
      tag = OTHER.get(word) or ('VERB' if word in VERBS else 'NOUN')
      note = 'SpaceAfter=No' if i == len(words) - 1 else '_'
      lines.append('\t'.join([str(i), word, word, tag, *'____', '_', note]))
    lines.append('')
  path.write_text('# a comment\n' + '\n'.join(lines))
  return str(path)


def test_a_trained_tagger_finds_nouns(
  tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  file = treebank(tmp_path / 'train.conllu')
  output = str(tmp_path / 'tagger')
  arguments = [f'--train={file}', f'--output={output}', '--steps=40', f'--test={file}']
  assert train_tagger.main(arguments) == 0
  printed = capsys.readouterr().out
  assert '168 sentences, 1,344 words' in printed
  assert f'--config.mining.pipeline={output}' in printed
  assert float(printed.split('conllu: ')[1].split('%')[0]) > 95
  extractor = load_extractor('spacy', output)
  assert extractor.name.startswith('spacy:en_')
  assert extractor.extract(['the red dog likes a small table.']) == [['dog', 'table']]


def test_words_are_read_as_they_are_written(tmp_path: pathlib.Path) -> None:
  rows = [
    ('1-2', "don't", '_', 'SpaceAfter=No'),
    ('1', 'do', 'AUX', '_'),
    ('2', "n't", 'PART', '_'),
    ('2.1', 'ghost', 'X', '_'),
    ('3', '!', 'PUNCT', '_'),
    ('4', 'dogs', 'NOUN', '_'),
  ]
  lines = ['\t'.join([i, w, w, tag, *'_____', note]) for i, w, tag, note in rows]
  (tmp_path / 'one.conllu').write_text('\n'.join(lines))
  assert list(train_tagger.read_conllu(str(tmp_path / 'one.conllu'))) == [
    [('do', 'AUX', False), ("n't", 'PART', False), ('!', 'PUNCT', True)]
    + [('dogs', 'NOUN', True)]
  ]


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (None, 'not found; expected sentences in CoNLL-U'),
    ('', 'has no sentences'),
    ('1 dog NOUN', 'line 1: 1 columns separated by tabs; CoNLL-U has 10'),
    ('\t'.join(['1', 'go', 'go', 'VERB', *'______']), 'no word is tagged NOUN'),
  ],
)
def test_what_cannot_be_learned_from(
  content: str | None,
  message: str,
  tmp_path: pathlib.Path,
  capsys: pytest.CaptureFixture[str],
) -> None:
  file = tmp_path / 'train.conllu'
  if content is not None:
    file.write_text(content)
  assert train_tagger.main([f'--train={file}', f'--output={tmp_path / "out"}']) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()
