"""From a checkpoint to the model that it holds: all who read one come through here."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ovs_jax.core.checkpoint import load_config, load_model
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path
from ovs_jax.core.tree import difference, drawn_shapes, flatten
from ovs_jax.core.types import Array, Params
from ovs_jax.models import backbones
from ovs_jax.models.clip import ClipConfig, init_clip
from ovs_jax.models.clip_config import NO_TOKENIZER, TOKENIZER_FIELDS
from ovs_jax.models.clip_mix import clip_key
from ovs_jax.models.clipseg import ClipSegConfig, init_clipseg
from ovs_jax.models.coseg import CoSegConfig, init_coseg
from ovs_jax.models.maskformer import MaskFormerConfig, init_maskformer
from ovs_jax.models.ovseg import OvSegConfig

ModelConfig = (
  ClipConfig
  | MaskFormerConfig
  | backbones.Config
  | ClipSegConfig
  | CoSegConfig
  | OvSegConfig
)


@dataclasses.dataclass(frozen=True)
class Model:
  """A kind of model.

  Attributes:
    read: makes its configuration of what a checkpoint says.
    init: draws its parameters, from a configuration and a key.
  """

  read: Callable[[Mapping[str, Any]], ModelConfig]
  init: Callable[[Any, Array], Params]


def _init_ovseg(config: OvSegConfig, key: Array) -> Params:
  found = {'proposer': init_maskformer(config.proposer, key)}
  return found | {clip_key(i): init_clip(x, key) for i, x in enumerate(config.clips)}


# By `config['model']` of a checkpoint.
MODELS: dict[str, Model] = {
  'backbone': Model(
    lambda stored: backbones.from_dict(stored['backbone']), backbones.init_backbone
  ),
  'clip': Model(lambda stored: ClipConfig.from_dict(stored['clip']), init_clip),
  'clipseg': Model(
    lambda stored: ClipSegConfig.from_dict(stored['clipseg']), init_clipseg
  ),
  'coseg': Model(lambda stored: CoSegConfig.from_dict(stored['coseg']), init_coseg),
  'ovseg': Model(OvSegConfig.from_dict, _init_ovseg),
  'proposer': Model(
    lambda stored: MaskFormerConfig(**stored['proposer']), init_maskformer
  ),
}
_TOKENIZER = 'text_tower/tokenizer'
_OF_TOKENIZER = tuple(f'text_tower/{field}' for field in TOKENIZER_FIELDS)
# Fields of configurations that say how to compute, not what.
_FREE = ('chunk', 'drop_path', 'dropout', 'dtype', 'prompt_depth', 'remat', 'unroll')


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """A model that was read.

  Attributes:
    directory: where it was.
    kind: of `MODELS`.
    config: of that kind; activations, epsilons and heads are in it.
    params: NumPy arrays of the shapes and names that `config` asks for.
    stored: all that the checkpoint says of itself.
  """

  directory: Path
  kind: str
  config: ModelConfig
  params: Params
  stored: Mapping[str, Any]


def load(
  directory: Path,
  *,
  kinds: Sequence[str] = tuple(MODELS),
  what: str = 'checkpoint',
) -> Checkpoint:
  """Reads a checkpoint.

  Args:
    directory: a model directory, or a run, of which the newest step is taken.
    kinds: of models that will do.
    what: named in errors.

  Raises:
    FileNotFoundError: there is no such directory.
    ValueError: it is damaged, holds a model of another kind, or parameters that do not
      fit what it says of itself.
  """
  kind = kind_of(directory, kinds=kinds, what=what)
  params, stored = load_model(directory, kind=kind, what=what)
  model = MODELS[kind]
  with describes(directory, kind, what=what):
    config = model.read(stored)
  expected = drawn_shapes(model.init, config)
  problem = difference(expected, params, what=f'the {what} {directory}')
  if problem is not None:
    raise UserError(problem)
  return Checkpoint(directory, kind, config, params, stored)


def kind_of(directory: Path, *, kinds: Sequence[str], what: str = 'checkpoint') -> str:
  """Returns which kind of model a checkpoint holds, without reading the model.

  Arguments and errors are those of `load`.
  """
  kind = load_config(directory, what=what).get('model')
  if kind not in kinds:
    known = ' or '.join(map(repr, kinds))
    raise UserError(
      f'the {what} {directory} holds a {kind!r} model; a {known} model was expected'
    )
  return kind


@contextlib.contextmanager
def describes(
  directory: Path, kind: str, *, what: str = 'checkpoint'
) -> Iterator[None]:
  """Turns a key that is missing in the block into an error that names the checkpoint.

  Raises:
    ValueError: the block ended with a KeyError or TypeError.
  """
  try:
    yield
  except (KeyError, TypeError) as error:
    raise UserError(
      f'the {what} {directory} does not describe its {kind!r} model ({error!r}); '
      'write it again with this version'
    ) from error


def check_agreement(
  asked: Any,
  found: Any,
  *,
  key: str,
  directory: Path,
  free: Sequence[str] = (),
) -> None:
  """Refuses a configuration that asks for another network than a checkpoint's.

  One that names no tokenizer, where there has to be one, takes the checkpoint's.

  Args:
    asked: a dataclass of the configuration.
    found: that of the checkpoint.
    key: of the configuration, named in errors.
    directory: of the checkpoint.
    free: fields that may differ, beside those that say how to compute.

  Raises:
    ValueError: names every field that differs, with both values.
  """
  want, have = (flatten(_plain(x)) for x in (asked, found))
  if want.get(_TOKENIZER) == NO_TOKENIZER:
    want = {k: x for k, x in want.items() if k not in _OF_TOKENIZER}
  other = [
    path
    for path in want
    if path.split('/')[-1] not in (*_FREE, *free) and want[path] != have.get(path)
  ]
  if other:
    listed = '; '.join(
      f'{key}.{path.replace("/", ".")} is {want[path]!r}, there it is '
      f'{have.get(path)!r}'
      for path in other
    )
    raise UserError(
      f'the checkpoint {directory} has another network than the configuration asks '
      f'for: {listed}. Set what the checkpoint has, or take another'
    )


def _plain(sizes: Any) -> dict[str, Any]:
  """Returns the fields, nested; values that mean the same become equal."""
  fields = {}
  for field in dataclasses.fields(sizes):
    value = getattr(sizes, field.name)
    if dataclasses.is_dataclass(value):
      value = _plain(value)
    fields[field.name] = tuple(value) if isinstance(value, list) else value
  if isinstance(sizes, ClipConfig):
    for tower in ('vision', 'text'):
      fields[f'{tower}_mlp'] = fields[f'{tower}_mlp'] or 4 * fields[f'{tower}_width']
    if fields['end_token'] == sizes.vocab_size - 1:
      fields['end_token'] = 0  # the largest id
  if isinstance(sizes, MaskFormerConfig):
    fields['backbone'] = _plain(sizes.backbone_config())
  return fields
