"""Captions of drawn scenes, as people write them: partial, varied, a little careless.

A caption names some of what is there, sometimes by a synonym, and one in four adds
words that are nowhere in the picture ("photo", "view", "afternoon"), so that mining
regions for its nouns has something to get wrong.
"""

import numpy as np

from ovs_jax.data.scenes_draw import NAMES, NUM_THINGS, Scene

_SYNONYM = 0.25  # how often each word is replaced by its synonym
_CLUTTER = 0.25  # how often a caption carries words for nothing in the picture

COLOUR_SYNONYMS = {
  'red': 'crimson',
  'orange': 'amber',
  'yellow': 'golden',
  'green': 'emerald',
  'cyan': 'turquoise',
  'blue': 'azure',
  'purple': 'violet',
  'pink': 'rose',
}
SHAPE_SYNONYMS = {
  'circle': 'ball',
  'square': 'box',
  'triangle': 'pyramid',
  'star': 'starfish',
  'cross': 'crucifix',
  'ring': 'hoop',
  'moon': 'crescent',
  'bowtie': 'ribbon',
}
STUFF_SYNONYMS = {
  'sky': 'clouds',
  'grass': 'lawn',
  'sand': 'dunes',
  'water': 'lake',
  'brick': 'masonry',
  'wood': 'timber',
  'snow': 'frost',
  'gravel': 'pebbles',
}
_WITH_ARTICLE = frozenset({'sky', 'lawn', 'lake'})  # the other stuff is "some ..."
_PREPOSITIONS = {'brick': 'against', 'wood': 'against'}  # others: on

# {x} is what the caption is about, with its article; {n} the same without.
_FRAMES = (
  '{x}',
  '{x}',
  '{x}.',
  'a photo of {x}',
  'a picture of {x}',
  'a picture showing {x}',
  'an image with {x}',
  'there is {x}',
  'here is {x}',
  'here we have {x}',
  'we can see {x}',
  'you can see {x}',
  'I saw {x}',
  'I found {x}',
  'this is {x}',
  'this one shows {x}',
  'it shows {x}',
  'look, {x}',
  'look at {x}',
  'just {x}',
  'nothing but {x}',
  'somebody photographed {x}',
)
_THING_FRAMES = (
  'the {n}',
  'one {n}',
  'my {n}',
  'another {n}',
  'look at the {n}',
  'somebody left {x} here',
  'nobody wanted this {n}',
  'close-up of {x}',
  '{x}, up close',
  '{x} seen from the front',
)
_STUFF_FRAMES = (
  'the {n}',
  'I like the {n}',
  'close-up of the {n}',
  'the {n}, up close',
  'this must be the {n}',
  'how the {n} looks',
)
_PAIRS = (
  '{a} and {b}',
  '{a} and {b}',
  '{a} with {b}',
  '{a} next to {b}',
  '{a} near {b}',
  '{a} beside {b}',
  '{a} together with {b}',
  '{a} not far from {b}',
)
_PLACED = (
  '{a} {on} the {s}',
  '{a} {on} the {s}',
  '{a} lying {on} the {s}',
  '{a} placed {on} the {s}',
  '{a} left {on} the {s}',
  'the {s} with {a}',
)
_FLOATING = ('{a} in the {s}', '{a} high in the {s}', 'the {s} with {a}')  # in the sky
# Clutter that goes before, instead of a frame, or after.
_BEFORE = (
  'a nice view of {x}',
  'a group with {x}',
  'a strange scene with {x}',
  'my favourite photo of {x}',
  'the best part of the day: {x}',
  'an idea for a postcard: {x}',
  'a memory of the trip, with {x}',
  'a little bit of art: {x}',
  'a quiet moment with {x}',
  'a collection with {x}',
  'a detail from the album: {x}',
  'a good example of {x}',
)
_AFTER = (
  'in the morning',
  'in the afternoon',
  'in the evening light',
  'from my point of view',
  'on a warm day',
  'last summer',
  'for the album',
  'in the middle of the picture',
  'in good weather',
  'as a work of art',
  'with a lot of detail',
  'at that time of the year',
  'for a friend',
  'in the background',
  'from the other side',
  'with great style',
)


def _article(name: str) -> str:
  return 'an' if name[0] in 'aeiou' else 'a'


def _swap(rng: np.random.Generator, word: str, synonyms: dict[str, str]) -> str:
  return synonyms[word] if rng.random() < _SYNONYM else word


def _word(rng: np.random.Generator, train_id: int) -> str:
  """Names a class, each word by its synonym one time in four."""
  if train_id >= NUM_THINGS:
    return _swap(rng, NAMES[train_id], STUFF_SYNONYMS)
  colour, shape = NAMES[train_id].split()
  return f'{_swap(rng, colour, COLOUR_SYNONYMS)} {_swap(rng, shape, SHAPE_SYNONYMS)}'


def _phrase(name: str, train_id: int) -> str:
  """Gives a name its article: "an orange circle", "the sky", "some sand"."""
  if train_id < NUM_THINGS:
    return f'{_article(name)} {name}'
  return f'the {name}' if name in _WITH_ARTICLE else f'some {name}'


def synonyms(train_id: int) -> tuple[str, ...]:
  """Other names that captions use for a class, most literal first."""
  if train_id >= NUM_THINGS:
    return (STUFF_SYNONYMS[NAMES[train_id]],)
  colour, shape = NAMES[train_id].split()
  return (
    f'{COLOUR_SYNONYMS[colour]} {shape}',
    f'{colour} {SHAPE_SYNONYMS[shape]}',
    f'{COLOUR_SYNONYMS[colour]} {SHAPE_SYNONYMS[shape]}',
  )


def _choose(rng: np.random.Generator, options: tuple[str, ...]) -> str:
  return options[rng.integers(len(options))]


def _frame(rng: np.random.Generator, body: str, extra: tuple[str, ...] = ()) -> str:
  """Turns a noun phrase into a caption; one in four gets clutter."""
  cluttered = rng.random() < _CLUTTER
  if cluttered and rng.random() < 0.4:
    return _choose(rng, _BEFORE).format(x=body)
  frames = extra if extra and rng.random() < 0.35 else _FRAMES
  bare = body.removeprefix('some ').removeprefix('the ')
  bare = bare.removeprefix('an ').removeprefix('a ')
  sentence = _choose(rng, frames).format(x=body, n=bare)
  return f'{sentence.rstrip(".")} {_choose(rng, _AFTER)}' if cluttered else sentence


def _mention(rng: np.random.Generator, scene: Scene) -> str:
  """Writes about one to four of the regions of a scene."""
  things = {region.train_id: region.ground for region in scene.things}
  chosen = [int(t) for t in rng.permutation(list(things))[: rng.integers(1, 4)]]
  phrases = [_phrase(_word(rng, t), t) for t in chosen]
  setting = rng.random()
  if setting < 0.35:  # the last thing stands on its own ground
    ground = things[chosen[-1]]
    templates = _FLOATING if NAMES[ground] == 'sky' else _PLACED
    on = _PREPOSITIONS.get(NAMES[ground], 'on')
    phrases[-1] = _choose(rng, templates).format(
      a=phrases[-1], on=on, s=_word(rng, ground)
    )
  elif setting < 0.5:  # or some stuff is named beside the things
    ground = int(rng.choice([region.train_id for region in scene.stuff]))
    phrases.append(_phrase(_word(rng, ground), ground))
  if len(phrases) == 1:
    return _frame(rng, phrases[0])
  if len(phrases) == 2:
    return _frame(rng, _choose(rng, _PAIRS).format(a=phrases[0], b=phrases[1]))
  return _frame(rng, f'{", ".join(phrases[:-1])} and {phrases[-1]}')


def describe(rng: np.random.Generator, scene: Scene) -> list[str]:
  """Writes one to five captions of a whole scene, each naming part of it."""
  return [_mention(rng, scene) for _ in range(rng.integers(1, 6))]


def describe_one(rng: np.random.Generator, train_id: int) -> list[str]:
  """Writes one or two captions of a close-up that shows one class."""
  frames = _THING_FRAMES if train_id < NUM_THINGS else _STUFF_FRAMES
  count = rng.integers(1, 3)
  return [
    _frame(rng, _phrase(_word(rng, train_id), train_id), frames) for _ in range(count)
  ]
