"""From a checkpoint to the system that it holds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.files import Path
from ovs_jax.core.tree import difference
from ovs_jax.core.types import Params
from ovs_jax.inference.clipseg import PROMPT, ClipSegSystem
from ovs_jax.inference.coseg import CoSegSystem
from ovs_jax.inference.coseg_no_training import SELECT, LabelStage
from ovs_jax.inference.system import System
from ovs_jax.models.clip import ClipConfig, init_clip
from ovs_jax.models.clipseg import ClipSegConfig, init_clipseg
from ovs_jax.models.coseg import CoSegConfig, init_coseg

KINDS = ('clipseg', 'coseg')  # of checkpoints, `config['model']`


def load_system(
  directory: Path,
  *,
  kind: str | None = None,
  labels: int = 0,
  label_clip: Path | None = None,
  templates: str | Sequence[str] | None = None,
  select: tuple[str, ...] = SELECT,
  keep_aspect: bool = False,
  text_cache: Path | None = None,
) -> System:
  """Reads a CLIPSeg or CoSeg checkpoint.

  Args:
    directory: see `core.checkpoint.load_model`.
    kind: the expected one of `KINDS`; None takes either.
    labels: k of a CLIPSeg: names that CLIP chooses for a picture; 0 asks for all.
    label_clip: checkpoint of the CLIP that chooses; None takes the CLIPSeg's own.
    templates: sentences around names; None takes CLIPSeg's, or those of training.
    select: sentences around names for the choice.
    keep_aspect: whether pictures keep theirs; a CoSeg squashes them always.
    text_cache: see `inference.names.NameEmbedder`.

  Raises:
    FileNotFoundError: there is no such directory.
    ValueError: it holds another model, or options that do not go with it.
  """
  params, stored = load_model(directory, kind=kind)
  found = stored.get('model')
  if found not in KINDS:
    raise ValueError(
      f'the checkpoint {directory} holds a {found!r} model; expected one of '
      f'{", ".join(KINDS)}'
    )
  if label_clip is not None and not labels:
    raise ValueError('a CLIP that chooses labels needs their number, such as labels=20')
  if found == 'coseg':
    if labels or keep_aspect:
      raise ValueError(
        f'the CoSeg {directory} chooses its own labels and squashes pictures; leave '
        'labels, label_clip and keep_aspect out'
      )
    return _coseg(params, stored, directory, text_cache)
  config = _config(ClipSegConfig.from_dict, stored, 'clipseg', directory)
  _check(lambda key: init_clipseg(config, key), params, directory)
  stage = None
  if labels:
    own = (config.clip, params['clip'])
    chooser = own if label_clip is None else _load_clip(label_clip)
    stage = LabelStage(*chooser, templates=select, text_cache=text_cache)
  return ClipSegSystem(
    config,
    params,
    templates=PROMPT if templates is None else templates,
    stage=stage,
    labels=labels,
    keep_aspect=keep_aspect,
  )


def _coseg(
  params: Params, stored: Mapping[str, Any], directory: Path, text_cache: Path | None
) -> CoSegSystem:
  config = _config(CoSegConfig.from_dict, stored, 'coseg', directory)
  _check(lambda key: init_coseg(config, key), params, directory)
  template = stored['template']
  return CoSegSystem(config, params, template=template, text_cache=text_cache)


def _load_clip(directory: Path) -> tuple[ClipConfig, Params]:
  params, stored = load_model(directory, kind='clip', what='CLIP checkpoint')
  config = _config(lambda given: ClipConfig(**given), stored, 'clip', directory)
  _check(lambda key: init_clip(config, key), params, directory)
  return config, params


def _config(
  read: Callable[[Mapping[str, Any]], Any],
  stored: Mapping[str, Any],
  key: str,
  directory: Path,
) -> Any:
  try:
    return read(stored[key])
  except (KeyError, TypeError) as error:
    raise ValueError(
      f'the checkpoint {directory} does not describe a {key} model ({error!r}); write '
      'it again with this version'
    ) from error


def _check(
  init: Callable[[jax.Array], Params], params: Params, directory: Path
) -> None:
  expected = jax.eval_shape(init, jax.random.key(0))
  problem = difference(expected, params, what=f'the checkpoint {directory}')
  if problem is not None:
    raise ValueError(problem)
