"""Builds a data set from the files that its authors publish, or from your own folder.

python -m ovs_jax.data.prepare --list
python -m ovs_jax.data.prepare --dataset=voc_20 --source=DIR
python -m ovs_jax.data.prepare --source=DIR
python -m ovs_jax.data.prepare --dataset=voc_20 --label_counts
"""

import argparse
import pathlib
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovs_jax.core.devices import keep_memory
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import DATA_DIR, Place, local, place
from ovs_jax.core.lookup import lookup
from ovs_jax.core.preemption import STOPPED_STATUS, Preemption, Stopped
from ovs_jax.core.runlog import progress
from ovs_jax.data import benchmarks, build, folder, load_dataset, pipeline
from ovs_jax.data.label_counts import count
from ovs_jax.data.layouts import LAYOUTS
from ovs_jax.data.stored import noted
from ovs_jax.settings import Dataset
from ovs_jax.text import vocabulary


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns 0, 75 when stopped, or 2 after an explained mistake."""
  parser = _parser()
  arguments = parser.parse_args(argv)
  try:
    if arguments.list:
      print(listing())
      return 0
    if arguments.label_counts:
      _tell_label_counts(arguments)
      return 0
    if not arguments.source:
      parser.error('--source is needed, or --list')
    keep_memory()
    with Preemption():
      _run(arguments)
    return 0
  except (ValueError, OSError) as error:
    lines = [f'error: {error}', *getattr(error, '__notes__', ())]
    print('\n'.join(lines), file=sys.stderr)
    return 2
  except Stopped as stopped:
    print(f'{stopped}; run the same command again', file=sys.stderr)
    return STOPPED_STATUS
  except KeyboardInterrupt:
    print('stopped; the same command goes on', file=sys.stderr)
    return 130


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m ovs_jax.data.prepare',
    description='Builds a data set, once, checking every file of it.',
    allow_abbrev=False,
  )
  add = parser.add_argument
  add(
    '--dataset',
    metavar='NAME',
    default='folder',
    help='one of --list (default: folder, photos of your own)',
  )
  add('--source', metavar='DIR', help='your photos, or the published files; see --list')
  add('--data_dir', default=DATA_DIR, help=f'where to keep it (default: {DATA_DIR})')
  add('--variant', default='', help='another form of it; see --list')
  add(
    '--allow_partial',
    action='store_true',
    help='take what there is of a sample; it becomes the variant "partial"',
  )
  add(
    '--longest',
    type=int,
    metavar='PIXELS',
    help='of photos of your own: store them, and their masks, with a longer side of at '
    'most so many pixels; 0: as they are (default: as before, at first as they are)',
  )
  add('--list', action='store_true', help='tell what is known, its source and licence')
  add(
    '--label_counts',
    '--label-counts',
    action='store_true',
    help='tell how many classes the pictures of a prepared data set show, and the '
    'number of labels that CoSeg without training takes of it; draws label_counts.png',
  )
  add('--split', default='train', help='of --label_counts (default: train)')
  return parser


def _tell_label_counts(arguments: Any) -> None:
  variant = arguments.source or arguments.variant or 'default'
  chosen = Dataset(arguments.dataset, variant, arguments.data_dir)
  _, builder = load_dataset(chosen)
  if 'label' not in builder.info.features:
    raise UserError(f'{builder.info.full_name} has no label maps, only captions')
  lookup(builder.info.splits, arguments.split, 'split')
  examples = pipeline.examples(builder, arguments.split)
  total = builder.info.splits[arguments.split].num_examples
  shown = progress(examples, total=total, title='count classes', unit='image')
  found = count(np.asarray(example['label']) for example in shown)
  title = f'{builder.info.full_name}, {arguments.split}'
  print(f'{title}\n{found}')
  found.draw('label_counts.png', title)
  print('written: label_counts.png')


def listing() -> str:
  """Returns what is known about every data set."""
  blocks = []
  for name, layout in LAYOUTS.items():
    names = vocabulary.load(layout.vocabulary)
    splits = ', '.join(f'{k} {s.count:,}' for k, s in layout.splits.items())
    variants = ', '.join(c.name for c in benchmarks.BENCHMARKS[name].BUILDER_CONFIGS)
    rows = {
      'images': splits,
      'classes': f'{len(names)}, sha256 {names.sha256[:16]}',
      'files': layout.files,
      'where': layout.where,
      'licence': layout.licence,
      'variants': variants,
    }
    lines = [f'{name}: {layout.title}']
    lines += [f'  {key:<9} {value}' for key, value in rows.items()]
    blocks.append('\n'.join(lines))
  blocks.append(
    textwrap.dedent("""\
    folder: your own images
      files     images/*, masks/*.png with names.txt, captions.jsonl; COCO, YOLO,
                VOC, CVAT, Label Studio
      see       docs/your_own_data.md""")
  )
  return '\n\n'.join(blocks)


def _run(arguments: Any) -> None:
  source = local(arguments.source).resolve()
  if not source.exists():
    raise FileNotFoundError(
      f'source directory {source} not found; name an existing one'
    )
  data_dir = place(arguments.data_dir, schemes=('gs',))
  if arguments.dataset == 'folder':
    if arguments.allow_partial or arguments.variant:
      raise UserError('a folder has no variants; it is taken as it is')
    if arguments.longest is not None and arguments.longest < 0:
      raise UserError(f'--longest={arguments.longest}: expected 0 or more pixels')
    builder = folder.prepare(data_dir, source, arguments.longest)
    names, variant = noted(builder, 'names', list), str(source)
    print(_summary('folder', variant, builder, len(names), data_dir))
    return
  lookup({**LAYOUTS, 'folder': None}, arguments.dataset, 'data set')
  if arguments.longest is not None:
    raise UserError('--longest is for photos of your own; benchmarks are as published')
  variant = arguments.variant or 'default'
  if arguments.allow_partial and not variant.startswith('partial'):
    variant = 'partial' if variant == 'default' else f'partial_{variant}'
  builder = prepare(arguments.dataset, source, data_dir, variant)
  names = vocabulary.load(builder.layout.vocabulary)
  print(_summary(arguments.dataset, variant, builder, len(names), data_dir))
  print(f'class list {names.name}, sha256 {names.sha256}')


def prepare(
  name: str, source: pathlib.Path, data_dir: Place, variant: str = 'default'
) -> benchmarks.Benchmark:
  """Returns the builder of a benchmark, built from `source` unless it is there already.

  Raises:
    SourceError: with everything that is missing or wrong below `source`.
    ValueError: unknown name or variant, or prepared with another class list.
    OSError: the disk is full or cannot be written.
  """
  builder = benchmarks.make(name, data_dir, variant)
  if not isinstance(data_dir, pathlib.Path):
    if not build.is_prepared(builder):
      with build.nearby(data_dir) as near:
        prepare(name, source, near, variant)
    return benchmarks.load(name, data_dir, variant)
  with build.locked(local(builder.data_dir).parent):
    builder = benchmarks.make(name, data_dir, variant)  # may be there by now
    if not build.is_prepared(builder):
      build.build(builder, source)
  return benchmarks.load(name, data_dir, variant)


def _summary(
  name: str, variant: str, builder: Any, classes: int, data_dir: Place
) -> str:
  splits = ', '.join(
    f'{split} {info.num_examples:,}' for split, info in builder.info.splits.items()
  )
  return (
    f'{name}: {splits} images, {classes} classes\n'
    f'use it with --config.dataset.name={name} --config.dataset.variant={variant} '
    f'--config.dataset.data_dir={data_dir}'
  )


if __name__ == '__main__':
  sys.exit(main())
