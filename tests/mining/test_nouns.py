"""Nouns by hand-computed cases, and precision and recall on labelled captions."""

import importlib.util
import json
import os
import pathlib

import pytest
import spacy

from ovs_jax.mining import lexicon
from ovs_jax.mining.lexicon import Word
from ovs_jax.mining.nouns import (
  NounExtractor,
  SpacyExtractor,
  load_extractor,
  phrases,
)

ROOT = pathlib.Path(__file__).parents[2]
SHARED = pathlib.Path(os.environ.get('OVS_SHARED', ROOT.parent / 'shared'))
# Captions of COCO val2017 (CC BY 4.0) with nouns marked by hand; the first line is a
# note that says how.
LABELLED = [
  json.loads(line)
  for line in (pathlib.Path(__file__).parent / 'captions_labelled.jsonl').open()
][1:]


def extract(caption: str, adjectives: str = 'none') -> list[str]:
  return load_extractor('lexicon', adjectives=adjectives).extract([caption])[0]


def precision_and_recall(extractor: NounExtractor) -> tuple[float, float]:
  found = extractor.extract([row['caption'] for row in LABELLED])
  pairs = [(set(f), set(row['nouns'])) for f, row in zip(found, LABELLED, strict=True)]
  correct = sum(len(f & expected) for f, expected in pairs)
  return (
    correct / sum(len(f) for f, _ in pairs),
    correct / sum(len(expected) for _, expected in pairs),
  )


@pytest.mark.parametrize(
  ('plural', 'singular'),
  [
    *(('dogs', 'dog'), ('buses', 'bus'), ('dishes', 'dish'), ('boxes', 'box')),
    *(('houses', 'house'), ('horses', 'horse'), ('vases', 'vase'), ('ties', 'tie')),
    *(('berries', 'berry'), ('cookies', 'cookie'), ('potatoes', 'potato')),
    *(('shoes', 'shoe'), ('knives', 'knife'), ('men', 'man'), ('children', 'child')),
    *(('leaves', 'leaf'), ('viruses', 'virus'), ('dresses', 'dress'), ('tvs', 'tv')),
  ],
)
def test_singular(plural, singular):
  assert lexicon.singular(plural) == singular
  assert lexicon.singular(singular) == singular


@pytest.mark.parametrize(
  'noun',
  [
    *('scissors', 'skis', 'people', 'pants', 'glasses', 'clothes', 'stairs', 'sheep'),
    *('grass', 'tennis', 'bus', 'cactus', 'canvas', 'gas', 'fish'),
  ],
)
def test_singular_keeps(noun):
  assert lexicon.singular(noun) == noun


@pytest.mark.parametrize(
  ('caption', 'names'),
  [
    ('A man rides a horse.', ['man', 'horse']),
    ('A fire hydrant near two parking meters', ['fire hydrant', 'parking meter']),
    ('a bunch of bananas', ['banana']),
    ('Two glasses of wine and a pair of glasses', ['glass', 'wine', 'glasses']),
    ('three wine glasses', ['wine glass']),
    ("a woman's hand holding scissors", ['woman', 'hand', 'scissors']),
    ('the dog chases another dog', ['dog']),
    ('a photo of the front of a house in the background', ['house']),
    ('a kitchen area and a street scene', ['kitchen', 'street']),
    ('People walk past a fruit stand', ['people', 'fruit stand']),
    ('A boy stands on a bench', ['boy', 'bench']),
    ('A woman slices the bread', ['woman', 'bread']),
    ('Cars crowd a street', ['car', 'street']),
    ('a British Airways plane over London', ['plane']),
    ('A TV AND TWO CHAIRS IN A ROOM', ['tv', 'chair', 'room']),
    ('A Dog Sitting On The Grass', ['dog', 'grass']),
    ('it\u2019s a well-lit room, with a bow-tie', ['room', 'bow-tie']),
    ('the sky is blue and the grass is wet', ['sky', 'grass']),
    ('an orange by the orange juice', ['orange', 'orange juice']),
    ('dressed in red', []),
    ('12:30 on 3rd', []),
    ('', []),
    ('!?', []),
  ],
)
def test_lexicon(caption, names):
  assert extract(caption) == names


@pytest.mark.parametrize(
  ('caption', 'none', 'colour'),
  [
    ('a red ball on the grass', ['ball', 'grass'], ['red ball', 'grass']),
    ('two light blue rings', ['ring'], ['blue ring']),
    ('a red and a blue cross', ['cross'], ['blue cross']),
    ('a big orange cat', ['cat'], ['orange cat']),
    ('an orange and white cat', ['cat'], ['white cat']),
    ('this one shows a rose bowtie', ['bowtie'], ['rose bowtie']),
    ('an azure star, amber box', ['star', 'box'], ['azure star', 'amber box']),
    ('red circle. blue square', ['circle', 'square'], ['red circle', 'blue square']),
    ('a white background', [], []),
    ('a red fire hydrant', ['fire hydrant'], ['red fire hydrant']),
  ],
)
def test_colours(caption, none, colour):
  assert extract(caption) == none
  assert extract(caption, 'colour') == colour


@pytest.mark.parametrize('shape', ['circle', 'square', 'triangle', 'star', 'cross'])
@pytest.mark.parametrize('colour', ['red', 'orange', 'violet', 'golden'])
@pytest.mark.parametrize(
  'frame', ['{}', 'a photo of {}', 'I saw {}', '{} lying on the grass', 'look at {}']
)
def test_names_of_a_colour_and_a_shape(frame, colour, shape):
  caption = frame.format(f'a {colour} {shape}')
  expected = [f'{colour} {shape}'] + ['grass'] * ('grass' in frame)
  assert extract(caption, 'colour') == expected


def test_lexicon_on_labelled_captions():
  precision, recall = precision_and_recall(load_extractor('lexicon'))
  assert len(LABELLED) == 214
  # Measured: 0.959 and 0.942 (part "third" alone, never looked at: 0.951 and 0.933).
  assert precision >= 0.95
  assert recall >= 0.93


def test_lexicon_lists_that_exclude_each_other():
  lists = lexicon.sections()
  assert not lists['verb'] & lists['ambiguous']
  assert not lists['colour'] & lists['colour noun']
  assert not lists['plural only'] & lists['singular in s']


def tagger(document):
  """Tags by a table, as a trained pipeline would."""
  nouns = {'dog', 'dogs', 'grass', 'ball', 'bow', 'tie', 'tree', 'branch', 'show'}
  for token in document:
    token.pos_ = 'NOUN' if token.lower_ in nouns else 'X'
  return document


class _Pipe:
  """Tokenises by a pipeline and tags by a function."""

  def __init__(self, pipeline, tag):
    self._pipeline, self._tag = pipeline, tag

  def pipe(self, texts):
    return [self._tag(self._pipeline.make_doc(text)) for text in texts]


@pytest.fixture
def pipeline():
  nlp = spacy.blank('en')
  spacy.Language.component('table_tagger', func=tagger)
  nlp.add_pipe('table_tagger')
  return nlp


def test_spacy_without_parser_and_lemmatizer(pipeline):
  extractor = SpacyExtractor(pipeline, adjectives='colour')
  captions = ['A red ball and two dogs on a tree branch.', 'Blue bow-tie']
  assert extractor.extract(captions) == [
    ['red ball', 'dog', 'tree branch'],
    ['blue bow-tie'],
  ]
  assert extractor.name == 'spacy:en_pipeline'
  assert extractor.version.endswith(f'(spaCy {spacy.__version__})')


def test_what_a_tagger_takes_for_a_noun_and_is_none(pipeline, monkeypatch):
  marked = {'snowy': 'NOUN', 'mountain': 'NOUN', 'women': 'PROPN', 'riding': 'NOUN'}
  marked |= {'london': 'PROPN'}

  def tag(document):
    for token in document:
      token.pos_ = marked.get(token.lower_, 'X')
    return document

  extractor = SpacyExtractor(pipeline)
  monkeypatch.setattr(extractor, '_pipeline', _Pipe(pipeline, tag))
  captions = ['Women riding over a snowy mountain in London']
  assert extractor.extract(captions) == [['woman', 'mountain']]


def test_spacy_from_a_folder(pipeline, tmp_path):
  spacy.blank('en').to_disk(tmp_path / 'blank')
  with pytest.raises(ValueError, match='needs a part-of-speech tagger'):
    load_extractor('spacy', str(tmp_path / 'blank'))
  pipeline.to_disk(tmp_path / 'tagger')
  extractor = load_extractor('auto', str(tmp_path / 'tagger'))
  assert extractor.extract(['the dogs']) == [['dog']]


def test_a_parser_tells_compounds_from_neighbours():
  words = [Word('dog', True, joins=False), Word('tree', True), Word('branch', True)]
  assert phrases(words, colours=False) == ['dog', 'tree branch']


def test_auto_without_the_pipeline_is_the_lexicon():
  extractor = load_extractor('auto', 'en_no_such_pipeline')
  assert extractor.name == 'lexicon'
  assert extractor.version == lexicon.version()


def test_spacy_is_optional(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  assert load_extractor('auto').name == 'lexicon'
  with pytest.raises(ImportError, match='pip install spacy'):
    load_extractor('spacy')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'backend': 'lexicn'}, "known: auto, lexicon, spacy. Did you mean 'lexicon'"),
    ({'adjectives': 'color'}, "known: colour, none. Did you mean 'colour'"),
    ({'nouns_as': 'papers'}, "known: names, paper. Did you mean 'paper'"),
    (
      {'nouns_as': 'paper', 'adjectives': 'colour'},
      "nouns_as='paper' takes nouns alone; leave config.mining.adjectives",
    ),
    (
      {'backend': 'spacy', 'pipeline': 'en_no_such_pipeline'},
      'not installed.*spacy download en_no_such_pipeline',
    ),
  ],
)
def test_wrong_arguments(arguments, message):
  with pytest.raises(ValueError, match=message):
    load_extractor(**arguments)


def test_the_papers_reading_takes_each_noun_by_itself(pipeline):
  caption = 'A view of tennis rackets and two tennis balls on a table, a group of dogs.'
  expected = ['view', 'tennis', 'rackets', 'balls', 'table', 'group', 'dogs']
  extractor = load_extractor('lexicon', nouns_as='paper')
  assert extractor.extract([caption, 'Running fast.']) == [expected, []]
  captions = ['A red ball and two dogs on a tree branch.', 'Blue bow-tie']
  words = [['ball', 'dogs', 'tree', 'branch'], ['bow-tie']]
  assert SpacyExtractor(pipeline, nouns_as='paper').extract(captions) == words


def test_the_papers_reading_finds_as_many_nouns_as_its_data_has():
  captions = [row['caption'] for row in LABELLED]
  counts = {
    reading: sum(
      map(len, load_extractor('lexicon', nouns_as=reading).extract(captions))
    )
    / len(captions)
    for reading in ('paper', 'names')
  }
  # 442,117 pairs of 118,287 images: 3.74 a caption.
  assert counts == pytest.approx({'paper': 3.626, 'names': 2.832}, abs=1e-3)


def test_auto_says_when_it_falls_back(capsys):
  load_extractor('auto', 'en_no_such_pipeline')
  said = capsys.readouterr().out
  assert 'embedded word list' in said
  assert 'python -m spacy download en_no_such_pipeline' in said
  load_extractor('lexicon')
  assert not capsys.readouterr().out


@pytest.mark.samples
def test_spacy_on_labelled_captions():
  extractor = load_extractor('spacy', str(SHARED / 'noun_tagger'))
  precision, recall = precision_and_recall(extractor)
  # Measured: 0.931 and 0.901 (part "third" alone: 0.934 and 0.902).
  assert precision >= 0.92
  assert recall >= 0.89
