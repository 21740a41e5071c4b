"""Foreign configurations, read by lists of what is understood.

A key that is on no list, or a value that ours does not compute, is refused by name: to
overlook one would give a model that runs and is wrong.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ovs_jax.core.errors import UserError
from ovs_jax.core.tree import shorten


@dataclasses.dataclass(frozen=True)
class Accepted:
  """The values that a key may have.

  Attributes:
    what: them in words, for errors.
    fits: whether a value is one of them.
  """

  what: str
  fits: Callable[[Any], bool]


Table = Mapping[str, Accepted]


def only(*values: Any) -> Accepted:
  """Accepts these values alone, in the order in which errors tell them."""
  return Accepted(' or '.join(map(repr, values)), lambda value: value in values)


def _is_number(value: Any) -> bool:
  return type(value) in (int, float) and -1e30 < value < 1e30


# Of what tensors tell by their shapes, training alone needs, or is checked where it is
# read.
FREE = Accepted('anything', lambda value: True)
COUNT = Accepted(
  'a positive whole number', lambda value: type(value) is int and 0 < value < 2**31
)
POSITIVE = Accepted('a positive number', lambda value: _is_number(value) and value > 0)
FRACTION = Accepted(
  'a number from 0 to 1', lambda value: _is_number(value) and 0 <= value <= 1
)
INDEX = Accepted(
  'a whole number from 0', lambda value: type(value) is int and 0 <= value < 2**31
)
FLAG = Accepted('true or false', lambda value: isinstance(value, bool))
NAME = Accepted('a name', lambda value: isinstance(value, str))


def near(usual: Sequence[float]) -> Accepted:
  """Accepts these values, which people round; nothing stands for them, too."""

  def fits(given: Any) -> bool:
    if given is None:
      return True
    if not isinstance(given, list | tuple) or len(given) != len(usual):
      return False
    pairs = zip(given, usual, strict=True)
    return all(_is_number(a) and abs(a - b) <= 1e-4 for a, b in pairs)

  return Accepted(f'{list(usual)}', fits)


def free(names: str) -> dict[str, Accepted]:
  """Returns the table of names, separated by blanks, that may have any value."""
  return dict.fromkeys(names.split(), FREE)


def fixed(names: str, *values: Any) -> dict[str, Accepted]:
  """Returns the table of names, separated by blanks, with these values alone."""
  return dict.fromkeys(names.split(), only(*values))


# Where a folder's settings hold how its pictures are prepared.
PROCESSOR = 'preprocessor_config.json'
# And its tokenizer: the second becomes its sha256.
TOKENIZER = ('tokenizer_config.json', 'tokenizer.json')

# What `transformers` writes into every config.json, whatever the model: where it comes
# from, how it is stored and trained, and how text would be generated.
COMMON: Table = {
  **free(
    '_name_or_path _commit_hash architectures transformers_version torch_dtype dtype '
    'id2label label2id num_labels problem_type finetuning_task task_specific_params '
    'initializer_factor initializer_range init_std init_xavier_std dropout '
    'attention_dropout activation_dropout hidden_dropout_prob '
    'attention_probs_dropout_prob gradient_checkpointing chunk_size_feed_forward '
    '_attn_implementation _attn_implementation_autoset attn_implementation '
    'return_dict use_return_dict output_attentions output_hidden_states output_scores '
    'return_dict_in_generate torchscript use_bfloat16 use_cache tf_legacy_loss '
    'is_encoder_decoder tie_encoder_decoder tie_word_embeddings tokenizer_class prefix '
    'bos_token_id pad_token_id eos_token_id sep_token_id decoder_start_token_id '
    'forced_bos_token_id forced_eos_token_id suppress_tokens begin_suppress_tokens '
    'bad_words_ids max_length min_length do_sample early_stopping num_beams '
    'num_beam_groups diversity_penalty temperature top_k top_p typical_p '
    'repetition_penalty length_penalty no_repeat_ngram_size '
    'encoder_no_repeat_ngram_size num_return_sequences remove_invalid_values '
    'exponential_decay_length_penalty'
  ),
  **dict.fromkeys((PROCESSOR, *TOKENIZER), FREE),
  'pruned_heads': only({}),
  **fixed('is_decoder add_cross_attention', False),
  'cross_attention_hidden_size': only(None),
}


def pixels(
  mean: Sequence[float], std: Sequence[float], **more: Accepted
) -> dict[str, Accepted]:
  """Returns what a preprocessor_config.json may say of how pictures are prepared.

  Args:
    mean: of the channels, of values from 0 to 1.
    std: of the same.
    **more: what a kind of model has besides, above all how pictures are resized.
  """
  return {
    **free('feature_extractor_type image_processor_type processor_class size'),
    **free('use_square_size _valid_processor_keys do_convert_rgb data_format'),
    **free('input_data_format return_tensors device disable_grouping'),
    **fixed('do_resize do_rescale do_normalize', True),
    'rescale_factor': Accepted('1/255', lambda x: x in (1 / 255, 0.00392156862745098)),
    'image_mean': near(mean),
    'image_std': near(std),
    **more,
  }


def check(
  file: str, sections: Iterable[tuple[str, Any, Table]], pixels: Table | None = None
) -> None:
  """Refuses settings that are not understood, all of them in one message.

  Args:
    file: where they stand.
    sections: of each, the words that name it in front of a key, its contents and what
      those may be.
    pixels: what the preprocessor_config.json in the first of them may be.

  Raises:
    ValueError: a key is on no list, or has a value that is not.
  """
  sections = list(sections)
  _, first, _ = sections[0]
  if pixels is not None and isinstance(first, Mapping) and PROCESSOR in first:
    sections.append((PROCESSOR, first[PROCESSOR], pixels))
  odd = []
  for label, section, table in sections:
    if not isinstance(section, Mapping):
      odd.append(f'{label} {_short(section)} instead of settings by name')
      continue
    for key, value in section.items():
      name = f'{label} {key}'.strip()
      if key not in table:
        odd.append(f'{name} {_short(value)}, a key that is not known')
      elif not table[key].fits(value):
        odd.append(f'{name} {_short(value)} instead of {table[key].what}')
  if odd:
    raise UserError(
      f'{file} describes a model that is not supported: '
      f'{shorten(odd, separator="; ")}. Convert another checkpoint, or take out of the '
      'file what changes neither the network nor its pictures'
    )


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 80 else f'{text[:77]}...'


def towers(
  settings: Mapping[str, Any] | None,
  says: str,
  top: Table,
  parts: Mapping[str, Table],
  pixels: Table,
  defaults: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Any], ...]:
  """Returns what a config.json of Hugging Face says of each tower of a CLIP.

  Args:
    settings: its contents, None if there is none.
    says: what it is needed for, for errors.
    top: what may stand beside the towers.
    parts: by tower ('text' for "text_config"), what may be said of it.
    pixels: what the preprocessor_config.json may be.
    defaults: by tower, what is true where it says nothing.

  Raises:
    UserError: there is none, or it says what is not understood.
  """
  if settings is None:
    raise UserError(
      f'there is no config.json, which says {says}; give the folder as --input='
    )
  given = {part: settings.get(f'{part}_config') for part in parts}
  sections = [('', settings, top)]
  sections += [
    (f'{part}_config', x, parts[part]) for part, x in given.items() if x is not None
  ]
  check('config.json', sections, pixels)
  return tuple({**defaults[part], **(x or {})} for part, x in given.items())
