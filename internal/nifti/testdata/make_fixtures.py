#!/usr/bin/env python3
"""Writes fixtures/, small images of every kind that the reader knows, and
fixtures.json: what nibabel 5 reads from each. Deterministic; needs numpy and
nibabel.

    python3 make_fixtures.py
"""
import gzip
import io
import json
import os
import shutil
import struct
import warnings

import nibabel as nib
import numpy as np
from nibabel.quaternions import quat2mat

warnings.simplefilter("ignore")
nib.imageglobals.logger.disabled = True
rng = np.random.default_rng(19)
here = os.path.dirname(os.path.abspath(__file__))
out = os.path.join(here, "fixtures")
facts = {}

DTYPES = ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]
SHAPE = (3, 4, 2)
ROTATION = quat2mat(np.array([0.9, 0.1, -0.3, 0.2]) / np.linalg.norm([0.9, 0.1, -0.3, 0.2]))
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = ROTATION @ np.diag([0.9, 1.1, 1.3])
OBLIQUE[:3, 3] = [-80.5, -120.25, -70.125]
OTHER = np.diag([-2.0, 2.5, 3.0, 1.0])
OTHER[:3, 3] = [90, -126, -72]


def values(dtype, shape=SHAPE):
    """Random values over the type's range, its ends among them."""
    dt = np.dtype(dtype)
    if dt.kind == "f":
        a = rng.normal(0, 1e4, shape)
        a.flat[:4] = [0, 1e-30, -1e30, np.pi]
        return a.astype(dt)
    info = np.iinfo(dt)
    a = rng.integers(info.min, info.max, shape, dtype=dt, endpoint=True)
    a.flat[:3] = [info.min, info.max, 1]
    return a


def header(version, order, pair=False):
    klass = {(1, False): nib.Nifti1Header, (1, True): nib.nifti1.Nifti1PairHeader,
             (2, False): nib.Nifti2Header, (2, True): nib.nifti2.Nifti2PairHeader}[version, pair]
    return klass(endianness=order)


def build(data, version=1, order="<", pair=False, edit=None, extension=None):
    """Bytes of header and data, written by hand after the header, so that
    nothing is rescaled; edit changes header fields."""
    h = header(version, order, pair)
    h.set_data_dtype(data.dtype)
    h.set_data_shape(data.shape)
    h["scl_slope"], h["scl_inter"] = 1, 0
    if extension:
        h.extensions.append(nib.nifti1.Nifti1Extension("comment", extension))
    if not pair:
        h["vox_offset"] = h.single_vox_offset + h.extensions.get_sizeondisk()
    if edit:
        edit(h)
    f = io.BytesIO()
    h.write_to(f)
    head = f.getvalue()
    body = data.astype(data.dtype.newbyteorder(order)).tobytes(order="F")
    if pair:
        return head, body
    return head.ljust(int(h["vox_offset"]), b"\0") + body


def patch(blob, at, fmt, *v):
    b = bytearray(blob)
    struct.pack_into(fmt, b, at, *v)
    return bytes(b)


def save(name, blob):
    path = os.path.join(out, name)
    if name.endswith(".gz"):
        blob = gzip.compress(blob, mtime=0)
    with open(path, "wb") as f:
        f.write(blob)
    return path


def number(v):
    """JSON has no NaN; None stands for any value that isn't finite."""
    v = float(v)
    return None if not np.isfinite(v) else int(v) if v == int(v) else v


def record(name, path=None):
    img = nib.load(path or os.path.join(out, name))
    data = img.get_fdata().astype(np.float32)
    facts[name] = {
        "class": type(img).__name__,
        "shape": list(img.shape),
        "dtype": img.header.get_data_dtype().newbyteorder("=").name,
        "big_endian": img.header.endianness == ">",
        "affine": [[number(v) for v in row] for row in img.affine],
        "values": [number(v) for v in data.ravel(order="F")],
    }


def single(name, data, **kw):
    save(name, build(data, **kw))
    record(name)


def pair(stem, data, gz="", **kw):
    head, body = build(data, pair=True, **kw)
    save(stem + ".hdr" + gz, head)
    save(stem + ".img" + gz, body)
    record(stem + ".hdr" + gz, os.path.join(out, stem + ".img" + gz))


def both(q, s, affine=OBLIQUE, other=OTHER):
    def edit(h):
        h.set_qform(affine, q)
        h.set_sform(other, s)
    return edit


shutil.rmtree(out, ignore_errors=True)
os.makedirs(out)

# Every type, version and byte order.
for version in (1, 2):
    for order, tag in (("<", "le"), (">", "be")):
        for dt in DTYPES:
            ext = ".nii.gz" if order == "<" and version == 1 else ".nii"
            single(f"{dt}_v{version}_{tag}{ext}", values(dt), version=version, order=order, edit=both(1, 1))

# Transforms.
small = values("i2")
single("sform_only.nii", small, edit=both(0, 2))
single("qform_only.nii", small, edit=both(1, 0))
single("qform_only_v2_be.nii", small, version=2, order=">", edit=both(1, 0))
single("sform_over_qform.nii", small, edit=both(1, 4))
single("no_form.nii", small, edit=lambda h: h.set_zooms((0.5, 2, 3)))
single("no_form_2d.nii", values("i2", (3, 4)), edit=lambda h: h.set_zooms((0.5, 2)))
flipped = OBLIQUE @ np.diag([1, 1, -1, 1])
single("qform_left_handed.nii", small, edit=both(1, 0, flipped))
half_turn = np.diag([-1.0, -1.0, 1.0, 1.0])
single("qform_half_turn.nii", small, edit=both(1, 0, half_turn))
base = build(small, edit=both(1, 0))
# b, c, d at 256, 260, 264: as long as float32 rounding makes them.
save("qform_rounded_long.nii", patch(base, 256, "<3f", 0.7071069, 0.7071069, 0))
record("qform_rounded_long.nii")
save("qfac_zero.nii", patch(base, 76, "<f", 0))
record("qfac_zero.nii")
save("qfac_two.nii", patch(build(small, edit=both(1, 0, flipped)), 76, "<f", 2))
record("qfac_two.nii")
save("qfac_minus_two.nii", patch(base, 76, "<f", -2))
record("qfac_minus_two.nii")
save("pixdim_negative.nii", patch(base, 80, "<3f", -0.9, 1.1, -1.3))
record("pixdim_negative.nii")
save("pixdim_zero.nii", patch(base, 80, "<3f", 0, 1.1, 0))
record("pixdim_zero.nii")
save("sform_code_unknown.nii", patch(build(small, edit=both(1, 1)), 254, "<h", 77))
record("sform_code_unknown.nii")
save("sform_code_negative.nii", patch(build(small, edit=both(1, 1)), 254, "<h", -1))
record("sform_code_negative.nii")
save("sizeof_hdr_wrong.nii", patch(base, 0, "<i", 0))
record("sizeof_hdr_wrong.nii")
save("bitpix_wrong.nii", patch(base, 72, "<h", 8))
record("bitpix_wrong.nii")


# Scaling.
def scl(slope, inter):
    def edit(h):
        both(1, 1)(h)
        h["scl_slope"], h["scl_inter"] = slope, inter
    return edit


for dt in ("u1", "i2", "u8", "f4", "f8"):
    single(f"scaled_{dt}.nii", values(dt), edit=scl(0.37, -12.5))
single("scaled_v2_be.nii", values("i4"), version=2, order=">", edit=scl(1e-3, 7))
single("slope_zero.nii", small, edit=scl(0, 5))
single("slope_nan.nii", small, edit=scl(np.nan, 5))
single("slope_inf.nii", small, edit=scl(np.inf, 5))
single("slope_one_inter.nii", small, edit=scl(1, 5))
odd = values("f4")
odd.flat[5:8] = [np.nan, np.inf, -np.inf]
single("not_finite.nii.gz", odd, edit=both(1, 1))

# Shapes.
for shape in ((5,), (3, 4), (3, 4, 1), (3, 4, 2, 1), (3, 4, 2, 3), (3, 4, 2, 1, 2), (2, 1, 2, 1, 2, 1, 2), (2, 2, 2, 1, 1, 1, 1)):
    single("shape_" + "x".join(map(str, shape)) + ".nii", values("i2", shape), edit=both(1, 1))
single("shape_v2_3x4x2x3.nii.gz", values("u2", (3, 4, 2, 3)), version=2, edit=both(1, 1))

# Where the data begin.
single("extension.nii", small, extension=b"Patient: Doe^Jane", edit=both(1, 1))
single("extension_v2_be.nii.gz", small, version=2, order=">", extension=b"Patient: Doe^Jane" * 9, edit=both(1, 1))


def far(h):
    both(1, 1)(h)
    h["vox_offset"] = 1024


single("offset_1024.nii", small, edit=far)

# Pairs.
pair("pair", small, edit=both(1, 1))
pair("pair_gz", values("f4"), gz=".gz", edit=both(1, 1))
pair("pair_be", values("i4"), order=">", edit=both(1, 0))
pair("pair_v2", values("u2"), version=2, edit=both(1, 1))
pair("pair_v2_be_gz", values("f8"), gz=".gz", version=2, order=">", edit=both(1, 1))

# ANALYZE 7.5, as nibabel reads it: with SPM2's scaling and SPM's origin.
for stem, order, edit in (
    ("analyze", "<", {}),
    ("analyze_be", ">", {}),
    ("analyze_origin", "<", {"origin": [2, 3, 1, 0, 0]}),
    ("analyze_origin_far", "<", {"origin": [200, 3, 1, 0, 0]}),
    ("analyze_slope", ">", {"scl_slope": 0.25}),
    ("analyze_slope_inter", "<", {"scl_slope": 0.25, "scl_inter": 3}),
    ("analyze_slope_inter_nan", "<", {"scl_slope": 0.25, "scl_inter": np.nan}),
    ("analyze_calibrated", "<", {"scl_slope": 0, "cal_max": 10, "cal_min": -2, "glmax": 300, "glmin": 20}),
):
    h = nib.spm2analyze.Spm2AnalyzeHeader(endianness=order)
    data = values("i2")
    h.set_data_dtype(data.dtype)
    h.set_data_shape(data.shape)
    h.set_zooms((2, 2.5, 3))
    for k, v in edit.items():
        h[k] = v
    f = io.BytesIO()
    h.write_to(f)
    save(stem + ".hdr", f.getvalue())
    save(stem + ".img", data.astype(data.dtype.newbyteorder(order)).tobytes(order="F"))
    record(stem + ".hdr", os.path.join(out, stem + ".img"))

with open(os.path.join(here, "fixtures.json"), "w") as f:
    f.write("{\n" + ",\n".join(
        json.dumps(k) + ": " + json.dumps(facts[k], separators=(",", ":"), allow_nan=False) for k in sorted(facts)) + "\n}\n")
