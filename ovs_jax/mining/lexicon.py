"""Finding the nouns of an English caption with word lists and a few rules.

Needs no download and no tagger. Words of closed classes, known verbs, adjectives and
adverbs, and words with their endings are no nouns; what is left is. Words that are both
noun and verb ("ride", "stand") are decided by their neighbours.
"""

import dataclasses
import functools
import hashlib
import importlib.resources
import re
from collections.abc import Sequence

_TOKEN = re.compile(r"\d[\w:.,/]*|[^\W\d_]+(?:[-'][^\W\d_]+)*|[^\w\s]")
_CLITIC = re.compile(r"(n't|'(?:s|m|re|ve|ll|d)?)$")
_PLURAL_WITHOUT_S = frozenset({'people', 'men', 'women', 'children'})
# Closed classes, in the order in which a word that is in two of them is looked up.
_CLASSES = (
  'determiner',
  'number',
  'auxiliary',
  'particle',
  'pronoun',
  'conjunction',
  'preposition',
  'adverb',
  'adjective',
  'colour',
)
# Endings of adjectives and adverbs, and the sections with the nouns that share them.
_ENDINGS = (
  ('ly', 'ly noun'),
  ('able', 'able noun'),
  ('ible', 'able noun'),
  ('ish', 'ish noun'),
  ('ic', 'ic noun'),
  ('ive', 'ive noun'),
  ('al', 'al noun'),
  ('ful', ''),
  ('ous', ''),
  ('less', ''),
  ('iest', ''),
)
_MODIFIERS = frozenset({'determiner', 'number', 'adjective', 'colour', 'preposition'})


@dataclasses.dataclass(frozen=True)
class Word:
  """A word of a caption.

  Attributes:
    text: in lower case.
    noun: whether it is a common noun.
    joins: whether it may be the first part of a compound with a noun that follows.
  """

  text: str
  noun: bool
  joins: bool = True


@functools.cache
def sections() -> dict[str, frozenset[str]]:
  """Returns the word lists of lexicon.txt by section."""
  lists = {}
  for line in _text().splitlines():
    if line.startswith('['):
      entries = lists[line.strip('[]')] = set()
    elif line and not line.startswith('#'):
      entries |= set(line.split())
  return {name: frozenset(entries) for name, entries in lists.items()}


def version() -> str:
  """Returns the first half of the digest of the word lists."""
  return hashlib.sha256(_text().encode('utf-8')).hexdigest()[:12]


@functools.cache
def _text() -> str:
  file = importlib.resources.files(__package__) / 'lexicon.txt'
  return file.read_text(encoding='utf-8')


@functools.cache
def _irregular() -> dict[str, str]:
  return dict(entry.split(':') for entry in sections()['irregular'])


@functools.cache
def _verb_forms() -> frozenset[str]:
  """Returns every form of the verbs, and -ing and -ed forms of the ambiguous ones."""
  forms = set(sections()['verb form'])
  for verb in sections()['verb'] | sections()['ambiguous']:
    stem = verb.removesuffix('e')
    doubled = verb + verb[-1]
    forms |= {stem + 'ing', doubled + 'ing', stem + 'ed', doubled + 'ed'}
  for verb in sections()['verb']:
    forms |= {verb, _third_person(verb)}
  return frozenset(forms)


def _third_person(verb: str) -> str:
  if verb.endswith('y') and verb[-2] not in 'aeou':
    return verb[:-1] + 'ies'
  return verb + ('es' if verb.endswith(('s', 'sh', 'ch', 'x', 'z', 'o')) else 's')


@functools.cache
def _ambiguous() -> dict[str, bool]:
  """Returns the words that are noun or verb; true for third person or plural."""
  bases = sections()['ambiguous']
  return {base: False for base in bases} | {_third_person(b): True for b in bases}


def singular(noun: str) -> str:
  """Returns the singular of a lower-case noun, as class names have it.

  What has no singular name keeps its plural: scissors, skis, people, glasses.
  """
  lists = sections()
  if noun in lists['plural only'] or noun in lists['singular in s']:
    return noun
  if noun in _irregular():
    return _irregular()[noun]
  if len(noun) < 4 or not noun.endswith('s') or noun.endswith(('ss', 'us', 'is')):
    return noun if noun not in lists['short noun'] else noun.removesuffix('s')
  if noun.endswith('ies'):
    return noun[:-1] if noun[:-1] in lists['ie noun'] else noun[:-3] + 'y'
  if noun.endswith(('sses', 'shes', 'ches', 'xes', 'zzes', 'oes')):
    return noun[:-2]
  if noun.endswith('uses') and not noun.endswith('ouses'):
    return noun[:-2]
  return noun.removesuffix('s')


def normalise(caption: str) -> str:
  """Straightens apostrophes, and lower-cases captions written in capitals or titles."""
  caption = caption.replace('\u2019', "'").replace('\u2018', "'").strip()
  words = re.findall(r'[^\W\d_]+', caption)
  capitals = sum(word[0].isupper() for word in words)
  return caption.lower() if len(words) > 2 and capitals > 0.6 * len(words) else caption


def tokens(caption: str) -> list[str]:
  """Splits a caption into words, numbers and punctuation, clitics apart."""
  found = []
  for token in _TOKEN.findall(caption):
    clitic = _CLITIC.search(token) if len(token) > 2 else None
    found += [token[: clitic.start()], clitic.group()] if clitic else [token]
  return [token for token in found if token]


def tag(caption: str) -> list[Word]:
  """Returns the words of a caption, with the common nouns marked."""
  cased = tokens(normalise(caption))
  words = [token.lower() for token in cased]
  kinds = [kind(word) for word in words]
  for i, token in enumerate(cased):
    starts = i == 0 or cased[i - 1] in '.!?"'
    if kinds[i] in ('noun', 'ambiguous') and token[0].isupper() and not starts:
      kinds[i] = 'noun' if words[i] in sections()['short noun'] else 'name'
  for i in range(len(words)):
    kinds[i] = _resolve(words, kinds, i)
  return [Word(w, kind == 'noun') for w, kind in zip(words, kinds, strict=True)]


def kind(word: str) -> str:
  """Returns the class of a lower-case word without its context.

  'noun', 'ambiguous' (noun or verb), 'verb', 'punctuation' or a closed class.
  """
  lists = sections()
  if not word[0].isalpha():
    return 'number' if word[0].isdigit() else 'punctuation'
  for name in _CLASSES:
    if word in lists[name]:
      return name
  if '-' in word:
    return _hyphenated_kind(word)
  if word in lists['ing noun'] or word in lists['ed noun']:
    return 'noun'
  if word in _ambiguous():
    return 'ambiguous'
  if word in _verb_forms():
    return 'verb'
  if word.endswith('ing') and len(word) > 4:
    return 'verb'
  if word.endswith('ed') and len(word) > 3:
    return 'adjective'
  for ending, exceptions in _ENDINGS:
    if word.endswith(ending) and len(word) > len(ending) + 2:
      is_noun = exceptions and word in lists[exceptions]
      if not is_noun and not word.endswith(('fish', 'berry')):
        return 'adjective'
  return 'noun'


def _hyphenated_kind(word: str) -> str:
  parts = word.split('-')
  kinds = [kind(part) for part in parts if part]
  if word in sections()['stop'] or not kinds:
    return 'noun'
  modifier = kinds[0] in ('number', 'colour', 'adjective') or kinds[-1] in (
    'verb',
    'adjective',
    'adverb',
    'preposition',
    'colour',
  )
  return 'adjective' if modifier else 'noun'


def _resolve(words: Sequence[str], kinds: Sequence[str], i: int) -> str:
  """Decides one word from its neighbours; those before are already decided."""
  lists, word, kind = sections(), words[i], kinds[i]
  before = kinds[i - 1] if i else 'start'
  after = kinds[i + 1] if i + 1 < len(words) else 'end'
  next_word = words[i + 1] if i + 1 < len(words) else ''
  if word in lists['shade'] and next_word in lists['colour'] | lists['colour noun']:
    return 'adjective'
  if word in lists['ing modifier'] and next_word in lists['modified by ing']:
    return 'noun'
  if kind not in ('noun', 'ambiguous'):
    return kind
  if before == 'particle' and words[i - 1] == 'to':
    return _after_to(words, kind, i)
  if before == 'auxiliary' and kind == 'noun' and after != 'noun':
    predicate = words[i - 2 : i - 1] not in (['there'], ['here'])
    return 'adjective' if predicate and not _is_plural(word) else 'noun'
  if kind == 'ambiguous':
    return _resolve_ambiguous(words, before, after, i)
  if after == 'determiner' and before in ('noun', 'conjunction', 'adverb', 'pronoun'):
    # "a man slices the", "cars crowd a": subject and verb agree, object follows.
    agree = before != 'noun' or _is_plural(words[i - 1]) != _is_plural(word)
    conjoined = before != 'conjunction' or _is_plural(word)
    return 'verb' if agree and conjoined else 'noun'
  return 'noun'


def _after_to(words: Sequence[str], kind: str, i: int) -> str:
  direction = words[i - 2 : i - 1] in (['next'], ['close'], ['attached'], ['similar'])
  infinitive = not _is_plural(words[i]) and not direction
  return 'verb' if infinitive and kind == 'ambiguous' else 'noun'


def _resolve_ambiguous(words: Sequence[str], before: str, after: str, i: int) -> str:
  third_person = _ambiguous()[words[i]]
  if third_person and words[i - 1 : i] == ['one']:  # "this one shows"
    return 'verb'
  if before in _MODIFIERS or before == 'punctuation':
    return 'noun'
  if before in ('pronoun', 'auxiliary', 'adverb', 'name'):
    return 'verb'
  if before == 'noun':
    return 'verb' if third_person != _is_plural(words[i - 1]) else 'noun'
  if before == 'conjunction':
    verbal = after in ('determiner', 'preposition', 'adverb', 'pronoun')
    return 'verb' if third_person and verbal else 'noun'
  if before == 'start':
    return 'verb' if after in ('determiner', 'preposition') else 'noun'
  return 'noun'


def _is_plural(word: str) -> bool:
  return word in _PLURAL_WITHOUT_S or singular(word) != word
