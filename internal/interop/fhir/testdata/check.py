"""Judges bundle.json by the data model of FHIR R4B, which for these resources is
R4's: python3 -m pip install fhir.resources==7.1.0; python3 check.py"""
import json
import pathlib

from fhir.resources.R4B.bundle import Bundle

text = (pathlib.Path(__file__).parent / "bundle.json").read_text()
bundle = Bundle.parse_raw(text)
known = json.loads(bundle.json())
sent = json.loads(text)


def lost(a, b, at):
    """Whatever the model does not know would be missing after a round trip."""
    if isinstance(a, dict):
        for k, v in a.items():
            assert k in b, f"{at}.{k}"
            lost(v, b[k], f"{at}.{k}")
    elif isinstance(a, list):
        assert len(a) == len(b), at
        for i, v in enumerate(a):
            lost(v, b[i], f"{at}[{i}]")
    elif isinstance(a, (int, float)):
        assert float(b) == a, (at, a, b)


lost(sent, known, "Bundle")
print(len(bundle.entry), "resources:", *sorted({e.resource.resource_type for e in bundle.entry}))
