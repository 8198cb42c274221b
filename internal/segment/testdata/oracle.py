"""Writes oracle.bin: logits that torch computes for three U-Nets, of one width,
wider at the first two levels below full resolution, and wider at the first, whose
logits hear that level too. Weights and input come from noise(), as
TestUNetEqualsTorch makes them too.

Usage: python3 oracle.py   (needs torch and numpy)
"""
import numpy as np
import torch
import torch.nn.functional as F

BASE, DEPTH, SHAPE, LOGITS = 8, 4, (32, 48, 32), 32  # shape is x, y, z
VOXEL_MM = 2.0


def noise(stream, n):
    """n numbers in [-1, 1): a 32-bit integer hash of (stream, index)."""
    i = np.arange(n, dtype=np.uint64) + np.uint64(stream) * np.uint64(0x9E3779B1)
    h = (i & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    h ^= h >> np.uint32(16)
    h = h * np.uint32(0x7FEB352D)
    h ^= h >> np.uint32(15)
    h = h * np.uint32(0x846CA68B)
    h ^= h >> np.uint32(16)
    return torch.from_numpy((h.astype(np.float64) / 2**31 - 1).astype(np.float32))


def conv(x, stream, out):
    cin = x.shape[1]
    w = noise(stream, out * cin * 27).reshape(out, cin, 3, 3, 3) * float(np.float32(np.sqrt(3 / (27 * cin))))
    return F.leaky_relu(F.conv3d(x, w, noise(stream + 1, out) * 0.1, padding=1), 0.01)


nx, ny, nz = SHAPE
coords = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * VOXEL_MM / 80 for n in (nz, ny, nx)], indexing="ij")
image = noise(1000, nx * ny * nz).reshape(nz, ny, nx) * 0.5 + 0.5
image_and_coordinates = torch.stack([image] + [torch.from_numpy(coords[a].astype(np.float32)) for a in (2, 1, 0)])[None]

def logits(wide, below):
    channels = [(2 if 1 <= level <= wide else 1) * BASE << level for level in range(DEPTH + 1)]
    x, skips, s = image_and_coordinates, [], 0
    for level in range(DEPTH + 1):
        if level:
            x = F.max_pool3d(x, 2)
        for _ in range(2):
            x = conv(x, s, channels[level])
            s += 2
        skips.append(x)
    for level in reversed(range(DEPTH)):
        low = x
        x = torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skips[level]], 1)
        for _ in range(2):
            x = conv(x, s, channels[level])
            s += 2
    w = noise(s, LOGITS * BASE).reshape(LOGITS, BASE, 1, 1, 1)
    y = F.conv3d(x, w, noise(s + 1, LOGITS))
    if below:
        w = noise(s + 2, LOGITS * channels[1]).reshape(LOGITS, channels[1], 1, 1, 1)
        y = y + F.interpolate(F.conv3d(low, w), scale_factor=2, mode="nearest")
    y = y[0].permute(1, 2, 3, 0).reshape(-1, LOGITS)
    print("wide", wide, "largest logit", y.abs().max().item(), "rows", len(y[::97]))
    return y[::97].contiguous().numpy().astype("<f4").tobytes()


with open("oracle.bin", "wb") as f:
    for wide, below in ((0, False), (2, False), (1, True)):
        f.write(logits(wide, below))
