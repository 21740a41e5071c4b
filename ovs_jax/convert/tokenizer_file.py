"""What a checkpoint's tokenizer.json puts around texts, and how they are cleaned."""

from collections.abc import Mapping
from typing import Any

from ovs_jax.convert import allowed
from ovs_jax.core.errors import UserError
from ovs_jax.core.lookup import lookup
from ovs_jax.models.clip_config import NO_TOKENIZER
from ovs_jax.text.trained_tokenizer import load_tokenizer

_DESCRIBED, _FILE = allowed.TOKENIZER
# By `tokenizer_class`: what it does to texts before its tokenizer.json.
TIPS = 'Tipsv2Tokenizer'  # whose files may lack what it does: lower case
_CLASSES = {
  TIPS: 'lower',
  'SiglipTokenizer': 'unpunctuated',
  **dict.fromkeys(
    ('Siglip2Tokenizer', 'GemmaTokenizer', 'GemmaTokenizerFast'), 'lower'
  ),
  **dict.fromkeys(('XLMRobertaTokenizer', 'XLMRobertaTokenizerFast'), 'none'),
  **dict.fromkeys(('T5Tokenizer', 'T5TokenizerFast'), 'none'),
  **dict.fromkeys(('PreTrainedTokenizerFast', 'TokenizersBackend'), 'none'),
}


def read_tokenizer(
  settings: Mapping[str, Any] | None,
  vocab_size: int,
  *,
  cleaning: str | None = None,
  strip_end: bool = False,
) -> dict[str, Any]:
  """Returns the fields of `TextTower` that a tokenizer has.

  Args:
    settings: what came with the tensors, by file name.
    vocab_size: ids that the text tower knows.
    cleaning: of texts; None goes by the `tokenizer_class`.
    strip_end: whether the id at the end is replaced by 0 (CLIPA in open_clip).

  Raises:
    ValueError: the files say less than is needed, contradict each other, or belong to
      another model; or the package `tokenizers` is not installed.
  """
  settings = settings or {}
  digest, described = settings.get(_FILE), settings.get(_DESCRIBED) or {}
  if digest is None:
    return {'tokenizer': NO_TOKENIZER}
  file = load_tokenizer(digest)
  if file.size > vocab_size:
    raise UserError(
      f'{_FILE} has {file.size} ids, but the text tower knows {vocab_size}: it belongs '
      "to another model. Take the model's own"
    )
  before, after = file.around()
  says = [described.get(f'add_{name}_token') for name in ('bos', 'eos')]
  odd = [
    name
    for name, found, said in zip(('bos', 'eos'), (before, after), says, strict=True)
    if isinstance(said, bool) and said != bool(found)
  ]
  if len(before) > 1 or len(after) > 1 or odd:
    wrong = f', and {_DESCRIBED} says otherwise of {", ".join(odd)}' if odd else ''
    raise UserError(
      f'{_FILE} puts {before} before and {after} after a text{wrong}; one id or none '
      'is read. Download both files again'
    )
  pad = _padding(file, described)
  if cleaning is None:
    name = described.get('tokenizer_class')
    cleaning = lookup(_CLASSES, str(name), f'tokenizer_class of {_DESCRIBED}')
    if name == TIPS and described.get('do_lower_case') is False:
      cleaning = 'none'
  end = after[0] if after else -1
  return {
    'tokenizer': digest,
    'cleaning': cleaning,
    'start': before[0] if before else -1,
    'end': 0 if strip_end and after else end,
    'pad': pad,
  }


def _padding(file: Any, described: Mapping[str, Any]) -> int:
  token = described.get('pad_token')
  if isinstance(token, Mapping):
    token = token.get('content')
  found = file.id_of(token) if isinstance(token, str) else file.padding
  if found is None:
    raise UserError(
      f'neither {_DESCRIBED} nor {_FILE} says which token fills up short texts '
      f'(pad_token); add it to {_DESCRIBED}'
    )
  return int(found)


def write_tokenizer(tower: Mapping[str, Any], kind: str = '') -> dict[str, Any]:
  """Returns the contents of a tokenizer_config.json for a `TextTower`'s fields.

  Args:
    tower: the fields.
    kind: the `tokenizer_class`; '': one that cleans texts in the same way.
  """
  digest = tower['tokenizer']
  if digest in ('', NO_TOKENIZER):
    return {}
  file = load_tokenizer(digest)
  names = {x: name for name, x in _CLASSES.items()}
  found = kind or names.get(tower['cleaning'], 'PreTrainedTokenizerFast')
  told = {'tokenizer_class': found, 'pad_token': file.token_of(tower['pad'])}
  if kind == TIPS:
    told['do_lower_case'] = tower['cleaning'] == 'lower'
  return {_DESCRIBED: told}
