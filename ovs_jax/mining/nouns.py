"""Candidate class names from captions: the nouns that a caption mentions.

OVSeg pairs every noun of a caption with a region (Liang et al. 2023, section 3.2). Its
parser and its filters were not published; its data has single words. Two readings:
`words` takes every noun by itself, as the paper says; `phrases` makes names of them, by
rules of ours. The only importer of spaCy.
"""

import functools
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import local
from ovs_jax.core.lookup import lookup
from ovs_jax.mining import lexicon
from ovs_jax.mining.lexicon import Word

ADJECTIVES = {'none': False, 'colour': True}
BACKENDS = dict.fromkeys(('auto', 'spacy', 'lexicon'))
# What a noun of a caption becomes: itself, as in the paper, or part of a name.
READINGS = dict.fromkeys(('paper', 'names'))
_COMPOUND = frozenset({'compound', 'nmod', 'amod'})
_PROBE = 'a red ball and two dogs on the grass'


@runtime_checkable
class NounExtractor(Protocol):
  """What finds nouns. `name` and `version` belong in every file made with it."""

  name: str
  version: str

  def extract(self, captions: Sequence[str]) -> list[list[str]]:
    """Returns the nouns of each caption: lower case, singular, in order, no repeats."""
    ...


class LexiconExtractor:
  """Finds nouns by the word lists and rules of `mining.lexicon`."""

  def __init__(self, *, adjectives: str = 'none', nouns_as: str = 'names'):
    """Takes one of `ADJECTIVES` and of `READINGS`; any other is a `ValueError`."""
    self._read = _reading(nouns_as, adjectives)
    self.name = 'lexicon'
    self.version = lexicon.version()

  def extract(self, captions: Sequence[str]) -> list[list[str]]:
    """Returns the nouns of each caption: lower case, singular, in order, no repeats."""
    return [self._read(lexicon.tag(c)) for c in captions]


class SpacyExtractor:
  """Nouns by a spaCy pipeline that tags parts of speech; it needs no parser."""

  def __init__(
    self, pipeline: Any, *, adjectives: str = 'none', nouns_as: str = 'names'
  ):
    """Wraps a `spacy.Language`.

    Raises:
      ValueError: the pipeline tags no parts of speech.
    """
    import spacy

    self._read = _reading(nouns_as, adjectives)
    meta = pipeline.meta
    self.name = f'spacy:{meta["lang"]}_{meta["name"]}'
    self.version = f'{meta["version"]} (spaCy {spacy.__version__})'
    self._pipeline = pipeline
    if not any(token.pos_ == 'NOUN' for token in pipeline(_PROBE)):
      raise UserError(
        f'the spaCy pipeline {self.name!r} finds no noun in {_PROBE!r}; its components '
        f'are {pipeline.pipe_names}. It needs a part-of-speech tagger, as '
        "'en_core_web_sm' has; or use the backend 'lexicon'."
      )

  def extract(self, captions: Sequence[str]) -> list[list[str]]:
    """Returns the nouns of each caption: lower case, singular, in order, no repeats."""
    texts = [lexicon.normalise(caption) for caption in captions]
    documents = self._pipeline.pipe(texts)
    return [self._read(_words(doc)) for doc in documents]


def load_extractor(
  backend: str = 'auto',
  pipeline: str = 'en_core_web_sm',
  *,
  adjectives: str = 'none',
  nouns_as: str = 'names',
) -> NounExtractor:
  """Returns a noun extractor.

  Args:
    backend: 'spacy', 'lexicon', or 'auto': spaCy where `pipeline` is installed, else
      the lexicon. What was chosen is in the extractor's `name`.
    pipeline: a spaCy pipeline, by the name of its package or the path of its folder.
    adjectives: 'none', or 'colour' to keep a colour that stands right before a noun:
      "a red ball on the grass" gives "red ball" and "grass".
    nouns_as: 'paper', every noun by itself, or 'names', the compounds that they make.

  Raises:
    ImportError: backend 'spacy' without spaCy.
    ValueError: an unknown backend, reading or choice of adjectives, or a pipeline that
      is not installed, cannot be loaded or has no tagger.
  """
  lookup(BACKENDS, backend, 'noun backend')
  lookup(ADJECTIVES, adjectives, 'choice of adjectives')
  installed = importlib.util.find_spec('spacy') is not None
  if backend == 'auto':
    backend = 'spacy' if installed and _is_available(pipeline) else 'lexicon'
    if backend == 'lexicon':
      missing = f'python -m spacy download {pipeline}'
      missing = missing if installed else f'pip install spacy && {missing}'
      print(
        f"nouns: by the embedded word list, as spaCy's {pipeline} is not installed; it "
        f'tags more of them rightly: {missing}',
        flush=True,
      )
  if backend == 'lexicon':
    return LexiconExtractor(adjectives=adjectives, nouns_as=nouns_as)
  if not installed:
    raise ImportError(
      "the noun backend 'spacy' needs spaCy: `pip install spacy`, then `python -m "
      f"spacy download {pipeline}`. The backend 'lexicon' needs neither."
    )
  loaded = _load_pipeline(pipeline)
  return SpacyExtractor(loaded, adjectives=adjectives, nouns_as=nouns_as)


def _reading(nouns_as: str, adjectives: str) -> Callable[[Sequence[Word]], list[str]]:
  """Returns what makes names of a caption's words."""
  colours = lookup(ADJECTIVES, adjectives, 'choice of adjectives')
  lookup(READINGS, nouns_as, 'reading of nouns')
  if nouns_as == 'names':
    return functools.partial(phrases, colours=colours)
  if colours:
    raise UserError(
      "config.mining.nouns_as='paper' takes nouns alone; leave "
      "config.mining.adjectives at 'none', or take nouns_as='names'"
    )
  return nouns


def _is_available(pipeline: str) -> bool:
  import spacy

  return spacy.util.is_package(pipeline) or local(pipeline).exists()


def _load_pipeline(pipeline: str) -> Any:
  import spacy

  try:
    return spacy.load(pipeline, exclude=['ner', 'lemmatizer'])
  except OSError as error:
    raise UserError(
      f'the spaCy pipeline {pipeline!r} is not installed and no folder with one. Run '
      f'`python -m spacy download {pipeline}`, name another, or use the backend '
      "'lexicon'."
    ) from error


# What a tagger may take for a noun and the lexicon knows better.
_NEVER_NOUNS = frozenset({'verb', 'adjective', 'adverb', 'preposition', 'auxiliary'})


def _is_noun(token: Any) -> bool:
  """The tagger's word, with two corrections that captions need.

  It takes words that it does not know for nouns ("a snowy mountain"), and common nouns
  for names where a sentence starts with them ("Women in fancy hats").
  """
  text = token.lower_
  if text in lexicon.sections()['short noun']:
    return True
  kind = lexicon.kind(text)
  if token.pos_ == 'PROPN':
    return token.i == 0 and kind == 'noun'
  return token.pos_ == 'NOUN' and kind not in _NEVER_NOUNS


def _words(document: Any) -> list[Word]:
  """Converts spaCy's tokens; hyphenated nouns become one word."""
  parsed = document.has_annotation('DEP')
  words = []
  hyphen = False
  for i, token in enumerate(document):
    text = token.lower_
    noun = _is_noun(token) and text[0].isalpha()
    glued = i > 0 and not document[i - 1].whitespace_
    if text == '-' and glued and words[-1].noun and not token.whitespace_:
      hyphen = True
      continue
    if hyphen:
      text = f'{words.pop().text}-{text}' if noun else text
      hyphen = False
    words.append(Word(text, noun, not parsed or token.dep_ in _COMPOUND))
  return words


def nouns(words: Sequence[Word]) -> list[str]:
  """Returns every noun of a caption by itself, as it is written: the paper's reading.

  Words about the picture ("view"), measures and plurals stay as they are.

  Args:
    words: of one caption, in order, punctuation included.

  Returns:
    Lower-case nouns in order of appearance, without repeats.
  """
  return list(dict.fromkeys(word.text for word in words if word.noun))


def phrases(words: Sequence[Word], *, colours: bool) -> list[str]:
  """Returns the names in a caption.

  Consecutive nouns are one name, its last word in the singular. Of "a bunch of
  bananas" only the bananas count, words about the picture ("background") do not, and
  colours count only before a noun and only if asked for.

  Args:
    words: of one caption, in order, punctuation included.
    colours: whether a colour right before a noun is part of the name.

  Returns:
    Lower-case names in order of appearance, without repeats.
  """
  names = []
  for start, end in _runs(words):
    name = _name(words, start, end, colours)
    if name and name not in names:
      names.append(name)
  return names


def _runs(words: Sequence[Word]) -> Iterator[tuple[int, int]]:
  """Yields [start, end) of every run of nouns that is one compound."""
  start = 0
  for i, word in enumerate(words):
    if not word.noun:
      start = i + 1
    elif not (word.joins and i + 1 < len(words) and words[i + 1].noun):
      yield start, i + 1
      start = i + 1


def _name(words: Sequence[Word], start: int, end: int, colours: bool) -> str:
  """Returns the name in one run, or '' if it is none."""
  lists = lexicon.sections()
  colour_words = lists['colour'] | lists['colour noun']
  followed = words[end].text if end < len(words) else ''
  texts = [word.text for word in words[start:end]]
  if followed == 'of' and lexicon.singular(texts[-1]) in lists['measure']:
    return ''
  before = words[start - 1].text if start else ''
  colour = before if before in colour_words else ''
  while texts and _is_stop(texts[-1]):
    texts.pop()
  while texts and (texts[0] in colour_words or _is_stop(texts[0])):
    if texts[0] in lists['colour noun'] and _is_the_thing(words, start, texts):
      break
    colour = texts[0] if texts[0] in colour_words else ''
    texts.pop(0)
    start += 1
  if not texts:
    return ''
  if texts[-1] != 'glasses' or len(texts) > 1 or followed == 'of':
    texts[-1] = 'glass' if texts[-1] == 'glasses' else lexicon.singular(texts[-1])
  name = ' '.join(texts)
  if len(name) < 3 and name not in lists['short noun']:
    return ''
  return f'{colour} {name}' if colours and colour else name


def _is_stop(word: str) -> bool:
  lists = lexicon.sections()
  number = word in lists['number'] or not any(c.isalpha() for c in word)
  return number or lexicon.singular(word) in lists['stop']


def _is_the_thing(words: Sequence[Word], i: int, texts: Sequence[str]) -> bool:
  """Whether "orange", the word `i`, is the fruit: "an orange", "orange juice"."""
  lists = lexicon.sections()
  if len(texts) > 1:
    return texts[1] in lists['after fruit']
  near = {word.text for word in words[max(i - 2, 0) : i + 3] if word is not words[i]}
  coordinated = near & {'and', 'or', ',', '-', '&'}
  return not (coordinated and near & (lists['colour'] | lists['colour noun']))
