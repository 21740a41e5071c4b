"""Backbones and Hugging Face's MaskFormer through the command, and back."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ovs_jax.convert import backbone_families, backbones, hf_maskformer, maskformer
from ovs_jax.convert.command import main
from ovs_jax.convert.rules import export_all
from ovs_jax.core.checkpoint import load_config, load_model
from ovs_jax.core.tree import flatten, map_with_path
from ovs_jax.models.maskformer import MaskFormerConfig
from ovs_jax.models.resnet import ResNetConfig
from ovs_jax.models.stored import load
from ovs_jax.models.swin import SwinConfig
from ovs_jax.train.recipes.proposer import load_backbone

SWIN = SwinConfig(8, (1, 2), (1, 2), 3, mlp_ratio=2)
DEEP = ResNetConfig((1, 1, 1, 1), 4, 4, 8, (1, 2, 4), 'frozen')
PLAIN = ResNetConfig((1, 1, 1, 1), 8, 4, 16, (1,), 'frozen', stem='plain')
BASIC = dataclasses.replace(PLAIN, bottleneck=16, block='basic')
INDEX = 'blocks.0.attn.relative_position_index'


def draw(shapes):
  rng = np.random.default_rng(0)
  return map_with_path(lambda _, x: rng.normal(size=x.shape).astype(np.float32), shapes)


def swin_index(side):
  """Rows of the table by pairs, written out."""
  index = np.zeros((side**2, side**2), np.int64)
  for i in range(side**2):
    for j in range(side**2):
      dy, dx = i // side - j // side, i % side - j % side
      index[i, j] = (dy + side - 1) * (2 * side - 1) + dx + side - 1
  return index


def classifier(layout, config):
  """Returns a file's tensors, and those that have to come back."""
  table = backbones.rules(layout, config)
  kept = export_all(table, draw(backbones.filled(config, norms=False)))
  extra = {'head.weight': np.ones((5, 16)), 'norm.weight': np.ones(16)}
  if layout == 'swin':
    kept |= {f'layers.{i}.{INDEX}': swin_index(3) for i in range(2)}
    extra['layers.0.blocks.1.attn_mask'] = np.ones((4, 9, 9))
  if layout == 'resnet':
    extra = {'stem.fc.weight': np.ones((5, 64))}
  kept = {k: np.array(v, order='C') for k, v in kept.items()}
  return {**kept, **{k: v.astype(np.float32) for k, v in extra.items()}}, kept


def convert(path, output, *more):
  return main([f'--input={path}', f'--output={output}', '--check', *more])


def there_and_back(source, kept, layout, folder):
  """Exports `folder`/o again and compares every bit."""
  hub = layout.startswith('hf_')
  back = folder / ('back' if hub else 'back.safetensors')
  line = [f'--export={layout}', f'--input={folder / "o"}', f'--output={back}']
  assert main(line) == 0
  found = load_file(back / 'model.safetensors' if hub else back)
  assert sorted(found) == sorted(kept)
  for name, value in kept.items():
    assert found[name].dtype == value.dtype, name
    np.testing.assert_array_equal(found[name], value, err_msg=name)
  return back


@pytest.mark.parametrize(
  'layout, config', [('swin', SWIN), ('resnet', DEEP), ('resnet', PLAIN)]
)
def test_detectrons_pickles(layout, config, tmp_path, capsys):
  source, kept = classifier(layout, config)
  content = {'model': source, '__author__': 'third_party', 'matching_heuristics': True}
  (tmp_path / 'a.pkl').write_bytes(pickle.dumps(content))
  assert convert(tmp_path / 'a.pkl', tmp_path / 'o') == 0
  printed = capsys.readouterr().out
  assert printed.startswith(f'{layout}: ') and 'all equal' in printed
  stored = load_config(tmp_path / 'o')
  assert stored['model'] == 'backbone'
  assert (
    stored['source']['left_out']
    == {
      'swin': ['attn_mask', 'head', 'norm'],
      'resnet': ['stem'],
    }[layout]
  )
  there_and_back(source, kept, layout, tmp_path)
  # The training of proposers takes it, and refuses the other kind.
  model = MaskFormerConfig(config, 8, 8, 4, 3, 16, 2, 8, 1, 0.0, 8, 8, 'float32')
  got = load_backbone(str(tmp_path / 'o'), model, backbones.shapes(config))
  np.testing.assert_array_equal(
    flatten(got)['patch_embed/bias' if layout == 'swin' else 'stem_conv1/norm/var'],
    source[
      'patch_embed.proj.bias' if layout == 'swin' else 'stem.conv1.norm.running_var'
    ],
  )
  other = dataclasses.replace(model, backbone=DEEP if layout == 'swin' else SWIN)
  with pytest.raises(ValueError, match='config.proposer.backbone asks for a'):
    load_backbone(str(tmp_path / 'o'), other, {})


@pytest.mark.parametrize(
  'layout, config, prefix',
  [
    ('hf_swin', SWIN, 'swin.'),
    ('hf_resnet', PLAIN, ''),
    ('hf_resnet', BASIC, 'resnet.'),
  ],
)
def test_hugging_face_folders(layout, config, prefix, tmp_path, capsys):
  wide = config
  if layout == 'hf_resnet':  # what only config.json says
    wide = dataclasses.replace(config, strides=(2, 2, 2, 2), stride_first=True)
  kept = export_all(
    backbones.rules(layout, wide), draw(backbones.filled(wide, norms=False))
  )
  kept = {k: np.array(v, order='C') for k, v in kept.items()}
  source = {f'{prefix}{k}': v for k, v in kept.items()}
  if prefix:
    source |= {'classifier.weight': np.ones((3, 16), np.float32)}
  folder = tmp_path / 'hf'
  folder.mkdir()
  save_file(source, folder / 'model.safetensors')
  settings = backbone_families.settings(wide)
  (folder / 'config.json').write_text(json.dumps(settings))
  assert convert(folder, tmp_path / 'o') == 0
  assert capsys.readouterr().out.startswith(f'{layout}: {len(kept)} tensors')
  stored = load_config(tmp_path / 'o')['backbone']
  assert type(wide).from_dict(stored) == wide
  back = there_and_back(source, kept, layout, tmp_path)
  exported = json.loads((back / 'config.json').read_text())
  assert {k: exported[k] for k in settings} == settings
  odd = {**settings, 'hidden_act': 'silu'}
  (folder / 'config.json').write_text(json.dumps(odd))
  assert convert(folder, tmp_path / 'p') == 2
  assert "hidden_act 'silu' instead of" in capsys.readouterr().err


HEADS = MaskFormerConfig(
  SWIN, 32, 8, 32, 3, 16, 4, 12, 1, 0.2, 0, 0, 'float32', False, 2
)


def four_stages(config):
  if isinstance(config, SwinConfig):
    return dataclasses.replace(config, depths=(1, 2, 1, 1), heads=(1, 2, 2, 2))
  return config


@pytest.mark.parametrize(
  ('backbone', 'same_width'),
  [(SWIN, False), (SWIN, True), pytest.param(PLAIN, False, marks=pytest.mark.slow)],
)
def test_hugging_faces_maskformer(backbone, same_width, tmp_path, capsys):
  config = dataclasses.replace(HEADS, backbone=four_stages(backbone))
  if same_width:  # where theirs has no layer from the backbone to the decoder
    width = four_stages(backbone).stage_widths()[-1]
    config = dataclasses.replace(config, width=width, project_input=False)
  params = draw(maskformer.shapes(config))
  kept = export_all(hf_maskformer.rules(config), params)
  kept['criterion.empty_weight'] = np.float32([1, 1, 0.1])
  if isinstance(backbone, SwinConfig):
    kept[f'{hf_maskformer.PIXELS}encoder.model.layernorm.weight'] = np.ones(
      64, np.float32
    )
    name = 'encoder.model.encoder.layers.1.blocks.0.attention.self'
    kept[f'{hf_maskformer.PIXELS}{name}.relative_position_index'] = swin_index(3)
  kept = {k: np.array(v, order='C') for k, v in kept.items()}
  folder = tmp_path / 'hf'
  folder.mkdir()
  save_file(kept, folder / 'model.safetensors')
  model = {'proposer': dataclasses.asdict(config), 'labels': ['cat', 'dog']}
  settings = hf_maskformer.HF_MASKFORMER.settings(model)['config.json']
  assert settings['decoder_config']['decoder_attention_heads'] == 4
  (folder / 'config.json').write_text(json.dumps(settings))
  assert convert(folder, tmp_path / 'o') == 0
  assert capsys.readouterr().out.startswith('hf_maskformer: ')
  found, stored = load_model(tmp_path / 'o', kind='proposer')
  assert MaskFormerConfig(**stored['proposer']) == config
  assert stored['labels'] == ['cat', 'dog']
  for path, value in flatten(params).items():
    np.testing.assert_array_equal(flatten(found)[path], value, err_msg=path)
  projected = 'model.transformer_module.input_projection.weight' in kept
  assert projected is not same_width
  assert load(tmp_path / 'o').config == config  # and has its parameters
  back = there_and_back(kept, kept, 'hf_maskformer', tmp_path)
  assert json.loads((back / 'config.json').read_text()) == settings


def test_mistakes(tmp_path, capsys):
  source, _ = classifier('swin', SWIN)
  path, output = tmp_path / 'a.safetensors', tmp_path / 'o'
  save_file({k: np.array(v, order='C') for k, v in source.items()}, path)
  assert convert(path, output, '--source=resnet') == 2
  assert 'names of swin, not of resnet; convert with --source=swin' in (
    capsys.readouterr().err
  )
  assert convert(path, output, '--activation=gelu') == 2
  assert '--activation belong to CLIP; this is a backbone' in capsys.readouterr().err
  assert not output.exists()
  assert convert(path, output) == 0
  for layout, text in (
    ('resnet', "this backbone is a Swin, the layout 'resnet' is of a ResNet"),
    ('hf_maskformer', "holds a 'backbone' model; a 'proposer' model was expected"),
  ):
    line = [f'--export={layout}', f'--input={output}', f'--output={tmp_path}/b']
    assert main([line[0], line[1], f'{line[2]}.safetensors']) == 2
    assert text in capsys.readouterr().err
  (tmp_path / 'd2').mkdir()
  deep = {'model': 'backbone', 'backbone': dataclasses.asdict(DEEP)}
  with pytest.raises(ValueError, match='no ResNet with the stem and the dilations'):
    backbone_families.HF_RESNET.names({**deep, 'feature_norms': False})
  embeds = dataclasses.replace(HEADS, num_classes=0, embed_dim=4, embed_hidden=4)
  with pytest.raises(ValueError, match='MaskFormer with a fixed list of classes only'):
    hf_maskformer.HF_MASKFORMER.names({'proposer': dataclasses.asdict(embeds)})


def test_the_backbone_of_a_whole_model_is_taken_when_asked_for(tmp_path, capsys):
  source, kept = classifier('resnet', DEEP)
  whole = {f'backbone.{k}': v for k, v in kept.items()}
  whole['sem_seg_head.predictor.weight'] = np.zeros((2, 2), np.float32)
  path = tmp_path / 'a.safetensors'
  save_file(whole, path)
  assert convert(path, tmp_path / 'o') == 2
  assert 'no known family has such tensors' in capsys.readouterr().err
  assert convert(path, tmp_path / 'o', '--source=resnet') == 0
  assert 'left out: sem_seg_head' in capsys.readouterr().out
  there_and_back(whole, kept, 'resnet', tmp_path)


# Names and shapes of a whole published file, as far as they matter here.
def test_the_files_of_the_paper_have_these_sizes():
  shapes = {
    'patch_embed.proj.weight': (128, 3, 4, 4),
    **{f'layers.{i}.blocks.0.mlp.fc1.weight': (512 * 2**i, 128) for i in range(4)},
    **{
      f'layers.{i}.blocks.{j}.attn.relative_position_bias_table': (529, 4 * 2**i)
      for i, depth in enumerate((2, 2, 18, 2))
      for j in range(depth)
    },
  }
  source = {k: np.broadcast_to(np.float32(0), v) for k, v in shapes.items()}
  found = backbones.infer_config(source)
  assert backbones.backbones.named(found) == 'swin_base'
  shapes = {
    'stem.conv1.weight': (64, 3, 3, 3),
    'stem.conv2.weight': (64, 64, 3, 3),
    'res2.0.conv1.weight': (64, 128, 1, 1),
    'res2.0.conv3.weight': (256, 64, 1, 1),
    **{
      f'res{i + 2}.{j}.conv1.norm.bias': (1,)
      for i, depth in enumerate((3, 4, 23, 3))
      for j in range(depth)
    },
  }
  source = {k: np.broadcast_to(np.float32(0), v) for k, v in shapes.items()}
  assert backbones.backbones.named(backbones.infer_config(source)) == 'r101c'
