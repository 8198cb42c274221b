"""Runs the networks of a weights file in ONNX Runtime and PyTorch, on as many
threads as there are processors, and prints their seconds and memory as JSON
lines beside those of `bench`. `make compare` installs what it needs.

Usage: python3 compare.py [--runs 3] FILE.weights
"""
import argparse
import json
import os
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np

MAGIC = b"NSWEIGHTS3\n"
LONG = 100_000
LOGITS = 32  # background's is 0


def read(path):
    """Yields (architecture, tensors in file order) of each network."""
    with open(path, "rb") as f:
        data = f.read()
    if not data.startswith(MAGIC):
        sys.exit(f"{path} is not a weights file of this version")
    at = len(MAGIC) + 4
    (length,) = struct.unpack("<I", data[len(MAGIC):at])
    head = json.loads(data[at:at + length])
    data, at = data[at + length:], 0

    def take(*shape):
        """The next tensor: see internal/segment/weights.go."""
        nonlocal at
        n, begun = int(np.prod(shape)), at
        if n < LONG:
            at += 2 * n
            return np.frombuffer(data[begun:at], "<f2").astype(np.float32).reshape(shape)
        at += n // 27 * 29
        kernels = np.frombuffer(data[begun:at], [("scale", "<f2"), ("taps", "i1", 27)])
        return (kernels["scale"].astype(np.float32)[:, None] * kernels["taps"]).reshape(shape)

    for name in ("locate", "whole", "half", "inner"):
        if name not in head:
            continue
        a = head[name]["architecture"]
        base, depth, tensors, inputs = a["base"], a["depth"], [], a["inputs"]
        wide = range(1, a.get("wide", 0) + 1)
        channels = [(2 if level in wide else 1) * base << level for level in range(depth + 1)]
        for out in channels:
            for cin in (inputs, out):
                tensors.append((take(out, cin, 3, 3, 3), take(out)))
            inputs = out
        for level in reversed(range(depth)):
            out = channels[level]
            for cin in (channels[level + 1] + out, out):
                tensors.append((take(out, cin, 3, 3, 3), take(out)))
        below = channels[1] if a.get("below") else 0
        up = take(LOGITS, below, 1, 1, 1)
        tensors.append((take(LOGITS, base, 1, 1, 1), take(LOGITS)))
        if below:
            tensors.append((up, np.zeros(LOGITS, np.float32)))
        yield name, a, tensors


def network(a, tensors):
    import torch
    import torch.nn.functional as F

    class UNet(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for i, (w, b) in enumerate(tensors):
                self.register_buffer(f"w{i}", torch.from_numpy(w.copy()))
                self.register_buffer(f"b{i}", torch.from_numpy(b.copy()))

        def forward(self, x):
            i = 0

            def block(x):
                nonlocal i
                for _ in range(2):
                    x = F.leaky_relu(F.conv3d(x, getattr(self, f"w{i}"), getattr(self, f"b{i}"), padding=1), 0.01)
                    i += 1
                return x

            skips = []
            for level in range(a["depth"] + 1):
                if level:
                    x = F.max_pool3d(x, 2)
                x = block(x)
                skips.append(x)
            for level in reversed(range(a["depth"])):
                low = x
                x = block(torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skips[level]], 1))
            x = F.conv3d(x, getattr(self, f"w{i}"), getattr(self, f"b{i}"))
            if a.get("below"):
                x = x + F.interpolate(F.conv3d(low, getattr(self, f"w{i + 1}"), getattr(self, f"b{i + 1}")), scale_factor=2, mode="nearest")
            return torch.softmax(torch.cat([torch.zeros_like(x[:, :1]), x], 1), 1)

    return UNet().eval()


def timed(run, runs):
    run()
    seconds = []
    for _ in range(runs):
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    return seconds


def measure(engine, name, weights, runs):
    """In a process of its own, whose greatest memory is the engine's."""
    import torch

    threads = os.cpu_count()
    torch.set_num_threads(threads)
    _, a, tensors = next(n for n in read(weights) if n[0] == name)
    x = torch.rand(1, a["inputs"], *reversed(a["shape"]))
    model = network(a, tensors)
    with torch.no_grad():
        if engine == "torch":
            version, seconds = torch.__version__, timed(lambda: model(x), runs)
        else:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(sys.argv[-1], options, providers=["CPUExecutionProvider"])
            feed = {"x": x.numpy()}
            worst = np.abs(session.run(None, feed)[0] - model(x).numpy()).max()
            if worst > 1e-3:
                sys.exit(f"onnxruntime and torch differ by {worst}")
            version, seconds = onnxruntime.__version__, timed(lambda: session.run(None, feed), runs)
    print(json.dumps({
        "name": name, "engine": f"{engine} {version}", "processors": threads, "base": a["base"], "box": a["shape"], "runs": runs,
        "seconds": round(statistics.median(seconds), 3), "best_seconds": round(min(seconds), 3),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }), flush=True)


def export(name, weights, path):
    import torch

    _, a, tensors = next(n for n in read(weights) if n[0] == name)
    x = torch.zeros(1, a["inputs"], *reversed(a["shape"]))
    torch.onnx.export(network(a, tensors), x, path, input_names=["x"], dynamo=False)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("weights")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, _, _ in read(args.weights):
            onnx = os.path.join(folder, name + ".onnx")
            for step in (["export", name], ["torch", name], ["onnxruntime", name]):
                subprocess.run([sys.executable, __file__, "--step", *step, str(args.runs), args.weights, onnx], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        _, _, step, name, runs, weights, onnx = sys.argv
        export(name, weights, onnx) if step == "export" else measure(step, name, weights, int(runs))
    else:
        main()
