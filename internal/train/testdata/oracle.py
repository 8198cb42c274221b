"""Writes gradients.bin: loss and gradients of one training step by torch's
float64 autograd, for TestGradientsEqualTorch, which makes the same weights and
input from noise(). Batch (re)normalisation follows Ioffe 2017 (1702.03275):
r and d are constants for the gradient.

Usage: python3 oracle.py   (needs torch and numpy)
"""
import numpy as np
import torch
import torch.nn.functional as F

BASE, DEPTH, SHAPE, LOGITS = 8, 2, (24, 16, 16), 32  # shape is x, y, z
VOXEL_MM, EPS = 2.0, 1e-5


def noise(stream, n, scale, offset):
    i = np.arange(n, dtype=np.uint64) + np.uint64(stream) * np.uint64(0x9E3779B1)
    h = (i & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    h ^= h >> np.uint32(16)
    h = h * np.uint32(0x7FEB352D)
    h ^= h >> np.uint32(15)
    h = h * np.uint32(0x846CA68B)
    h ^= h >> np.uint32(16)
    v = (h.astype(np.float64) / 2**31 - 1).astype(np.float32) * np.float32(scale) + np.float32(offset)
    return torch.from_numpy(v.astype(np.float64))


def run(rmax, dmax, out, below=False):
    state = {"stream": 0}
    leaves = []

    def fill(n, scale, offset, learn=True):
        v = noise(state["stream"], n, scale, offset)
        state["stream"] += 1
        if learn:
            v.requires_grad_()
            leaves.append(v)
        return v

    def block(x, ch):
        cin = x.shape[1]
        w = fill(ch * cin * 27, np.sqrt(3 / (27 * cin)), 0)
        gamma, beta = fill(ch, 0.2, 1), fill(ch, 0.2, 0)
        rm, rv = fill(ch, 0.1, 0, False), fill(ch, 0.1, 0.3, False)
        z = F.conv3d(x, w.reshape(ch, cin, 3, 3, 3), padding=1)
        mean, var = z.mean((0, 2, 3, 4)), z.var((0, 2, 3, 4), unbiased=False)
        std, run_std = torch.sqrt(var + EPS), torch.sqrt(rv + EPS)
        r = (std / run_std).clamp(1 / rmax, rmax).detach()
        d = ((mean - rm) / run_std).clamp(-dmax, dmax).detach()
        v = lambda t: t[None, :, None, None, None]
        y = (z - v(mean)) / v(std) * v(r) + v(d)
        return F.leaky_relu(y * v(gamma) + v(beta), 0.01)

    nx, ny, nz = SHAPE
    coords = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * VOXEL_MM / 80 for n in (nz, ny, nx)], indexing="ij")
    image = noise(1000, nx * ny * nz, 0.5, 0.5).reshape(nz, ny, nx)
    x = torch.stack([image] + [torch.from_numpy(coords[a].astype(np.float32).astype(np.float64)) for a in (2, 1, 0)])[None]
    skips = []
    for level in range(DEPTH + 1):
        if level:
            x = F.max_pool3d(x, 2)
        x = block(block(x, BASE << level), BASE << level)
        skips.append(x)
    for level in reversed(range(DEPTH)):
        low = x
        x = torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skips[level]], 1)
        x = block(block(x, BASE << level), BASE << level)
    w, b = fill(BASE * LOGITS, 1, 0), fill(LOGITS, 1, 0)
    logits = F.conv3d(x, w.reshape(BASE, LOGITS).T.reshape(LOGITS, BASE, 1, 1, 1), b)
    if below:
        w = fill(2 * BASE * LOGITS, 1, 0).reshape(2 * BASE, LOGITS).T.reshape(LOGITS, 2 * BASE, 1, 1, 1)
        logits = logits + F.interpolate(F.conv3d(low, w), scale_factor=2, mode="nearest")
    logits = torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)[0].reshape(LOGITS + 1, -1)
    y = torch.arange(nx * ny * nz) * 7 % 33
    logp = logits.log_softmax(0)
    p = logp.exp()
    cw = (1 + torch.arange(33, dtype=torch.float64) / 10)[y]
    ce = -(cw * logp.gather(0, y[None])[0]).sum() / cw.sum()
    hit = torch.zeros(33, dtype=torch.float64).index_add(0, y, p.gather(0, y[None])[0])
    dice = (2 * hit + 1) / (p.sum(1) + torch.bincount(y, minlength=33) + 1)
    loss = 1 - dice.mean() + 0.5 * ce
    grads = torch.autograd.grad(loss, leaves)
    out.append(loss.detach().reshape(1))
    for i, g in enumerate(grads):
        is_weight = i < len(grads) - 2 - below and i % 3 == 0
        out.append(g[::31] if is_weight else g)
    print("loss", loss.item(), "smallest |pre-activation| matters little: float64")


out = []
run(1, 0, out)
run(3, 2, out)
run(3, 2, out, below=True)
torch.cat(out).numpy().astype("<f4").tofile("gradients.bin")
