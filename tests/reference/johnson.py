"""The network of Johnson et al. 2016 as it is known today, in a straight line: reflection padding before every
convolution, instance normalisation with learned scale and shift, nearest-neighbour upsampling, no tanh.

Written from the description (c9s1-32, d64, d128, R128 x 5, u64, u32, c9s1-3), not from the code under test.
"""

from __future__ import annotations

import torch
from torch import nn


def padded(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.ReflectionPad2d(kernel // 2), nn.Conv2d(inputs, outputs, kernel, stride))


class ReferenceJohnson(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.in1 = padded(3, 32, 9), nn.InstanceNorm2d(32, affine=True)
        self.conv2, self.in2 = padded(32, 64, 3, 2), nn.InstanceNorm2d(64, affine=True)
        self.conv3, self.in3 = padded(64, 128, 3, 2), nn.InstanceNorm2d(128, affine=True)
        for block in range(1, 6):
            for half in "ab":
                setattr(self, f"res{block}{half}", padded(128, 128, 3))
                setattr(self, f"resin{block}{half}", nn.InstanceNorm2d(128, affine=True))
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.deconv1, self.in4 = padded(128, 64, 3), nn.InstanceNorm2d(64, affine=True)
        self.deconv2, self.in5 = padded(64, 32, 3), nn.InstanceNorm2d(32, affine=True)
        self.deconv3 = padded(32, 3, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.in1(self.conv1(x)))
        y = torch.relu(self.in2(self.conv2(y)))
        y = torch.relu(self.in3(self.conv3(y)))
        for block in range(1, 6):
            first, second = getattr(self, f"res{block}a"), getattr(self, f"res{block}b")
            norm1, norm2 = getattr(self, f"resin{block}a"), getattr(self, f"resin{block}b")
            y = y + norm2(second(torch.relu(norm1(first(y)))))
        y = torch.relu(self.in4(self.deconv1(self.upsample(y))))
        y = torch.relu(self.in5(self.deconv2(self.upsample(y))))
        return self.deconv3(y)
