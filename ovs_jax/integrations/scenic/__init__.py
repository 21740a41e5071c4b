"""google-research's Scenic: our data sets in its registry, our recipes as its models.

Scenic has no release: clone https://github.com/google-research/scenic (this was written
for commit 4a38d475), put it on PYTHONPATH and install clu. PyPI's `scenic` is another
project.

    from ovs_jax.integrations import scenic
    scenic.register()  # 'ovs_jax/voc_20', ..., and 'ovs_jax' for the data of a recipe
    Model = scenic.model_class()  # what Scenic's trainers call model_cls

`classification_trainer` of Scenic trains `Model` on the batches of `ovs_jax`:

    python -m ovs_jax.integrations.scenic \\
      --config=ovs_jax/integrations/scenic/config.py:scenes:clip --workdir=runs/scenic

Losses are those of `ovs_jax.main` with the same configuration, up to rounding, on any
number of devices: frozen parameters stay, the optimizer, its groups and the bounds are
the recipe's, negatives come from all devices. What only our own loop does is refused
(`model.check_config`). On several devices only the recipes `clip_pretrain` and
`clip_regions` train, since the losses of the others are over the whole batch, of which
Scenic gives each device a part. Recipes have no validation data. `scenic.main` itself
does not know our model, and needs big_vision; other trainers that map a step over the
axis `batch` and initialise with `input_shape` will do; others, and several processes,
were not tried.
"""

import functools

from ovs_jax.data import DATASETS
from ovs_jax.integrations.scenic.checkout import load
from ovs_jax.integrations.scenic.datasets import recipe_dataset, segmentation_dataset
from ovs_jax.integrations.scenic.model import model_class
from ovs_jax.integrations.scenic.optimizer import register_optimizer

__all__ = ['model_class', 'register']


def register() -> list[str]:
  """Adds our data sets and optimizer to Scenic's; returns the names of the data sets.

  Every data set with label maps is `ovs_jax/<name>`. `ovs_jax` alone gives the batches
  of the recipe whose configuration is in `dataset_configs`.

  Raises:
    ImportError: Scenic is not there, or PyPI's project of the same name is.
  """
  registry = load('scenic.dataset_lib.datasets').DatasetRegistry
  builders = {
    f'ovs_jax/{name}': functools.partial(segmentation_dataset, name)
    for name in DATASETS
    if name != 'coco_captions_2017'  # captions alone have no label maps
  }
  builders['ovs_jax'] = recipe_dataset
  known = set(registry.list())
  for name, builder in builders.items():
    if name not in known:
      registry.add(name, builder)
  register_optimizer()
  return sorted(builders)
