"""Writes torch.json: forward results and autograd gradients by PyTorch in float64.

Inputs are not stored: both sides compute them from the same integer hash (see value), exact in
float32. Results are float32, base64. Run: python3 oracle.py (torch 1.13 made the file here).
"""
import base64
import json

import torch
import torch.nn.functional as F


def value(seed, n):
    """n values in [-1, 1): the top 16 bits of i*2654435761 + seed*40503 after one xorshift."""
    out = []
    for i in range(n):
        h = (i * 2654435761 + seed * 40503) & 0xFFFFFFFF
        h ^= h >> 15
        h = h * 2246822519 & 0xFFFFFFFF
        out.append((h >> 16) / 32768 - 1)
    return out


def tensor(seed, *shape):
    n = 1
    for s in shape:
        n *= s
    return torch.tensor(value(seed, n), dtype=torch.float64).reshape(shape).requires_grad_()


def pack(**tensors):
    return {k: base64.b64encode(v.detach().float().contiguous().numpy().tobytes()).decode() for k, v in tensors.items()}


def conv(out, up, inn, d, h, w):
    """LeakyReLU(conv3d(concat(upsample(low), in)) + bias) with a linear loss."""
    x, weight, bias = tensor(1, 1, inn, d, h, w), tensor(2, out, up + inn, 3, 3, 3), tensor(3, out)
    both = x
    if up:
        low = tensor(4, 1, up, d // 2, h // 2, w // 2)
        both = torch.cat([F.interpolate(low, scale_factor=2, mode="nearest"), x], 1)
    z = F.conv3d(both, weight, padding=1)
    z.backward(tensor(5, *z.shape).detach())
    r = dict(z=z, y=F.leaky_relu(z + bias[None, :, None, None, None], 0.01), dx=x.grad, dw=weight.grad)
    if up:
        r["dlow"] = low.grad
    return pack(**r)


def norm(c, d, h, w):
    """LeakyReLU(batch normalisation), statistics of the batch, eps 1e-5."""
    x, gamma, beta = tensor(1, 1, c, d, h, w), tensor(2, c), tensor(3, c)
    y = F.leaky_relu(F.batch_norm(x, None, None, gamma, beta, training=True, eps=1e-5), 0.01)
    # A value on the kink would let rounding choose the branch, which changes the gradient.
    assert y.abs().min() > 1e-6, y.abs().min()
    y.backward(tensor(5, *y.shape).detach())
    return pack(y=y, dx=x.grad, dgamma=gamma.grad, dbeta=beta.grad)


def pool(c, d, h, w):
    x = tensor(1, 1, c, d, h, w)
    y = F.max_pool3d(x, 2)
    y.backward(tensor(5, *y.shape).detach())
    return pack(y=y, dx=x.grad)


def loss(c, d, h, w):
    """Soft Dice and class-weighted cross entropy over 33 classes, the background's logit 0."""
    k = 33
    x, weight, bias = tensor(1, 1, c, d, h, w), tensor(2, c, k - 1), tensor(3, k - 1)
    labels = torch.tensor([int((v + 1) * 16.5) for v in value(6, d * h * w)])
    class_weight = torch.tensor(value(7, k), dtype=torch.float64) + 1.5
    logits = (x.reshape(c, -1).T @ weight + bias)
    logits = torch.cat([torch.zeros(len(labels), 1, dtype=torch.float64), logits], 1)
    p = logits.softmax(1)
    one_hot = F.one_hot(labels, k).double()
    dice = (2 * (p * one_hot).sum(0) + 1) / (p.sum(0) + one_hot.sum(0) + 1)
    ce = F.cross_entropy(logits, labels, weight=class_weight)
    value_ = 1 - dice.mean() + 0.5 * ce
    value_.backward()
    return pack(p=p, dice=dice, value=value_.reshape(1), ce=ce.reshape(1), dx=x.grad, dw=weight.grad, db=bias.grad)


def perceptron(voxels, *sizes):
    """Dense layers with LeakyReLU between them and a linear loss. A layer's weights are [group of 32][in][32]."""
    y = tensor(1, voxels, sizes[0]).detach()
    weights, biases = [], []
    for layer, (inn, out) in enumerate(zip(sizes, sizes[1:])):
        weights.append(tensor(10 + layer, out // 32, inn, 32))
        biases.append(tensor(20 + layer, out))
        y = y @ weights[-1].permute(1, 0, 2).reshape(inn, out) + biases[-1]
        if layer < len(sizes) - 2:
            assert y.abs().min() > 1e-6, y.abs().min()
            y = F.leaky_relu(y, 0.01)
    y.backward(tensor(5, *y.shape).detach())
    grads = {f"d{name}{layer}": t.grad for name, of in (("w", weights), ("b", biases)) for layer, t in enumerate(of)}
    return pack(y=y, **grads)


def adam():
    """Three steps with clipping to norm 1 (Adam), and three of AdamW with decay 0.1."""
    r = {}
    for name, cls, decay in (("adam", torch.optim.Adam, 0.0), ("adamw", torch.optim.AdamW, 0.1)):
        p = torch.nn.Parameter(tensor(1, 21).detach().clone())
        opt = cls([p], lr=0.01, weight_decay=decay)
        for step in range(3):
            p.grad = tensor(10 + step, 21).detach().clone()
            torch.nn.utils.clip_grad_norm_([p], 1.0)
            opt.step()
        r[name] = p
    return pack(**r)


with open("torch.json", "w") as f:
    json.dump({
        "direct": conv(8, 0, 8, 3, 4, 5),
        "direct, 4 channels": conv(8, 0, 4, 2, 3, 6),
        "winograd": conv(8, 0, 8, 2, 4, 8),
        "upsampled, direct": conv(8, 8, 4, 2, 2, 6),
        "upsampled, winograd": conv(8, 8, 8, 2, 4, 8),
        "norm": norm(16, 2, 3, 4),
        "pool": pool(8, 2, 5, 6),
        "loss": loss(8, 2, 3, 5),
        "loss, 16 channels": loss(16, 1, 3, 3),
        "perceptron": perceptron(11, 16, 64, 32, 32),
        "adam": adam(),
    }, f, indent=1)
