"""The authors' networks at paper size, built from their own sources in the folder VOXLAB_OFFICIAL.

Nothing of those sources is copied: what a network's file imports beside PyTorch and does not need to
run (loggers, base classes of inference pipelines, download helpers) is replaced by empty stand-ins.
"""

import importlib
import importlib.util
import os
import sys
import types

from torch import nn


class Base(nn.Module):
    """Stands in for nnU-Net's SegmentationNetwork: only nn.Module is needed."""

    conv_op = None
    inference_apply_nonlin = staticmethod(lambda x: x)


def source(folder):
    root = os.environ.get("VOXLAB_OFFICIAL")
    if not root:
        sys.exit("VOXLAB_OFFICIAL must name the folder with the authors' sources; see README.md")
    path = os.path.join(root, folder)
    if not os.path.isdir(path):
        sys.exit(f"{path} is missing; see README.md")
    sys.path.insert(0, path)
    return path


def stand_in(name, **attributes):
    module = types.ModuleType(name)
    module.__dict__.update(attributes)
    sys.modules[name] = module
    return module


def full_size_only(network):
    """Without the heads of deep supervision, as the authors evaluate."""
    for switch in ("do_ds", "_deep_supervision"):
        if hasattr(network, switch):
            setattr(network, switch, False)


def unetr_pp(variant, shape, classes, **settings):
    source("unetr_plus_plus")
    stand_in("unetr_pp.network_architecture.neural_network", SegmentationNetwork=Base)
    module = importlib.import_module(f"unetr_pp.network_architecture.{variant}.unetr_pp_{variant}")
    network = module.UNETR_PP(
        in_channels=shape[0], out_channels=classes, feature_size=16, num_heads=4,
        depths=[3, 3, 3, 3], dims=[32, 64, 128, 256], do_ds=True, **settings,
    )
    return network, shape, classes


def unetr_pp_synapse():
    return unetr_pp("synapse", (1, 64, 128, 128), 14, img_size=[64, 128, 128])


def unetr_pp_tumor():
    return unetr_pp("tumor", (4, 128, 128, 128), 4)


def ux_net():
    source("3DUX-Net")
    for name in ("lib", "lib.utils", "lib.utils.tools", "lib.models", "lib.models.tools"):
        stand_in(name)
    stand_in("lib.utils.tools.logger", Logger=type("Logger", (), {"info": staticmethod(print)}))
    stand_in("lib.models.tools.module_helper", ModuleHelper=object)
    module = importlib.import_module("networks.UXNet_3D.network_backbone")
    network = module.UXNET(
        in_chans=1, out_chans=5, depths=[2, 2, 2, 2], feat_size=[48, 96, 192, 384],
        drop_path_rate=0, layer_scale_init_value=1e-6, spatial_dims=3,
    )
    return network, (1, 96, 96, 96), 5


def levit_unet():
    path = source("LeViT-UNet")
    import timm.layers
    import timm.models.vision_transformer

    stand_in("timm.models.layers", activations=timm.layers.activations, trunc_normal_=timm.layers.trunc_normal_)
    timm.models.vision_transformer.trunc_normal_ = timm.layers.trunc_normal_
    stand_in("timm.models.registry", register_model=lambda function: function)
    stand_in("utils", replace_batchnorm=None)
    stand_in("ptflops", get_model_complexity_info=None)
    for name in ("cv2", "matplotlib", "matplotlib.pyplot"):
        stand_in(name)
    spec = importlib.util.spec_from_file_location("levit_384", f"{path}/LeViT-UNet-384.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Build_LeViT_UNet_384(num_classes=9, pretrained=False), (1, 224, 224), 9


def dae_former():
    source("DAEFormer")
    module = importlib.import_module("networks.DAEFormer")
    return module.DAEFormer(num_classes=9), (1, 224, 224), 9  # it repeats one channel to three


def brats_unet():
    source("Brats21_KAIST_MRI_Lab")
    importlib.import_module("nnunet")
    stand_in("nnunet.network_architecture.neural_network", SegmentationNetwork=Base)
    module = importlib.import_module("nnunet.network_architecture.generic_UNet")
    init = importlib.import_module("nnunet.network_architecture.initialization").InitWeights_He(1e-2)
    network = module.Generic_UNet(
        4, 32, 3, 5, 2, 2, nn.Conv3d, nn.BatchNorm3d, {"eps": 1e-5, "affine": True}, nn.Dropout3d,
        {"p": 0, "inplace": True}, nn.LeakyReLU, {"negative_slope": 1e-2, "inplace": True}, True,
        False, lambda x: x, init, [[2, 2, 2]] * 5, [[3, 3, 3]] * 6, False, True, True, 320,
        encoder_scale=1,
    )
    return network, (4, 128, 128, 128), 3


# Network and variant as voxlab names them -> () -> (network, shape of one image, classes).
NETWORKS = {
    "unetr_pp/synapse": unetr_pp_synapse,
    "unetr_pp/tumor": unetr_pp_tumor,
    "ux_net/flare": ux_net,
    "brats_unet/bl": brats_unet,
    "levit_unet/384": levit_unet,
    "dae_former/synapse": dae_former,
}
