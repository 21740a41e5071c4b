"""What `ovs_jax.predict` takes for CLIPSeg and CoSeg checkpoints, and for no others."""

import argparse
import pathlib
from typing import Any

import numpy as np

from ovs_jax.core.checkpoint import load_config
from ovs_jax.core.files import Place, place
from ovs_jax.core.images import read_image
from ovs_jax.core.masks import read_mask
from ovs_jax.core.types import UInt8
from ovs_jax.inference.heat_maps import write_heat_maps
from ovs_jax.inference.load import KINDS
from ovs_jax.inference.prompted import RULES, PromptedSegmenter
from ovs_jax.inference.result import Segmentation
from ovs_jax.text.classes import Classes

# Flags that only an OVSeg takes.
_OTHERS = ('classifier', 'weight', 'prompts', 'window', 'overlap', 'mode', 'dtype')
_OTHERS += ('panoptic', 'agreement')
_OWN = ('labels', 'label_clip', 'keep_aspect', 'heat_maps', 'example')


def add_options(parser: argparse.ArgumentParser) -> None:
  """Adds the flags; all are None or false by default."""
  group = parser.add_argument_group('checkpoints of CLIPSeg and CoSeg')
  group.add_argument(
    '--heat-maps',
    action='store_true',
    help='write the probabilities of all names, as .npz and as a picture',
  )
  group.add_argument(
    '--labels',
    type=int,
    metavar='K',
    help='CLIPSeg: segment the K names only that CLIP finds in the photo (CoSeg '
    'without training; the paper: 20)',
  )
  group.add_argument(
    '--label-clip',
    metavar='DIR',
    help="checkpoint of that CLIP (default: the CLIPSeg's own)",
  )
  group.add_argument(
    '--keep-aspect',
    action='store_true',
    help='CLIPSeg: do not squash photos to a square',
  )
  group.add_argument(
    '--example',
    nargs=3,
    action='append',
    metavar=('NAME', 'IMAGE', 'MASK'),
    help='CLIPSeg: an image and a mask (not 0 where the thing is) that say what NAME '
    'is, in place of its text; may be repeated',
  )


def is_prompted(arguments: argparse.Namespace) -> bool:
  """Returns whether the checkpoint is one of these.

  Raises:
    ValueError: it is not, and a flag or rule was given that belongs to them; or it is,
      and one was given that does not.
  """
  kind = load_config(arguments.checkpoint).get('model')
  given = vars(arguments)
  if kind in KINDS:
    wrong = [f for f in _OTHERS if given[f] not in (None, False)]
    others = RULES
  else:
    wrong = [f for f in _OWN if given[f]]
    others = ('pixels', 'demo')
  if wrong:
    flags = ', '.join('--' + f.replace('_', '-') for f in wrong)
    raise ValueError(f'{flags}: not for a {kind!r} checkpoint; leave it out')
  if arguments.rule is not None and arguments.rule not in others:
    raise ValueError(
      f'--rule={arguments.rule} is not for a {kind!r} checkpoint; take one of '
      f'{", ".join(others)}'
    )
  return kind in KINDS


def load(arguments: argparse.Namespace) -> PromptedSegmenter:
  """Reads the checkpoint."""
  return PromptedSegmenter.load(
    arguments.checkpoint,
    labels=0 if arguments.labels is None else arguments.labels,
    label_clip=arguments.label_clip,
    templates=arguments.templates,
    keep_aspect=arguments.keep_aspect,
    text_cache=arguments.text_cache,
  )


def asked(arguments: argparse.Namespace, background: Classes) -> dict[str, Any]:
  """Returns the arguments of `PromptedSegmenter.segment`."""
  examples: dict[str, list[Any]] = {}
  for name, image, mask in arguments.example or []:
    examples.setdefault(name, []).append((read_image(image), read_mask(mask)))
  return {
    'synonyms': arguments.synonyms,
    'background': background,
    'threshold': arguments.threshold,
    'rule': arguments.rule or RULES[0],
    'heat': arguments.heat_maps,
    'examples': examples,
  }


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
  """Returns what a result depends on; nothing where no flag was given."""
  given = vars(arguments)
  return {flag: given[flag] for flag in _OWN if given[flag]}


def write_more(
  arguments: argparse.Namespace,
  result: Segmentation,
  image: UInt8[np.ndarray, 'h w 3'],
  path: pathlib.Path,
) -> list[Place]:
  """Writes heat maps beside the other results, if they were asked for."""
  if not arguments.heat_maps:
    return []
  output = place(arguments.output or 'predictions')
  return write_heat_maps(result, image, output / path.stem)
