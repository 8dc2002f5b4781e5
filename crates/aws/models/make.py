#!/usr/bin/env python3
"""Cuts the public service models down to the facts that Martlet interprets.

    python3 crates/aws/models/make.py          writes SERVICE.json beside this file
    python3 crates/aws/models/make.py --check  exits 1 when writing would change a byte

The source is the PyPI package botocore (Apache-2.0), of exactly the version below. What is kept: operation names,
methods, URIs, shapes, limits, patterns, enumerations, error codes. What is dropped: every sentence of documentation
and whatever else only concerns clients.
"""

import json
import pathlib
import sys

BOTOCORE = "1.44.5"
MODELS = {"lambda": "2015-03-31", "logs": "2014-03-28"}

# Where the services do not do what their models say: facts of these shapes are dropped.
CORRECTIONS = {
    # An unknown runtime is refused after all else, with a code and a text of its own (InvalidParameterValueException).
    ("lambda", "Runtime"): ["enum"],
}

METADATA = ["apiVersion", "endpointPrefix", "jsonVersion", "protocol", "serviceId", "signingName", "targetPrefix"]
OPERATION = ["http", "input", "output", "errors"]
SHAPE = [
    "type", "required", "members", "member", "key", "value", "payload", "min", "max", "pattern", "enum", "sensitive",
    "streaming", "timestampFormat", "exception", "error", "fault", "eventstream", "event", "document", "union",
    "locationName", "flattened",
]
MEMBER = ["shape", "location", "locationName", "timestampFormat", "jsonvalue", "eventpayload", "idempotencyToken"]


def pick(source, names):
    return {name: source[name] for name in names if name in source}


def cut_shape(shape):
    kept = pick(shape, SHAPE)
    for name in ("member", "key", "value"):
        if name in kept:
            kept[name] = pick(kept[name], MEMBER)
    if "members" in kept:
        kept["members"] = {name: pick(member, MEMBER) for name, member in kept["members"].items()}
    return kept


def cut(service, model):
    operations = {}
    for name, operation in model["operations"].items():
        kept = pick(operation, OPERATION)
        kept["errors"] = [error["shape"] for error in kept.get("errors", [])]
        for side in ("input", "output"):
            if side in kept:
                kept[side] = kept[side]["shape"]
        operations[name] = kept
    shapes = {name: cut_shape(shape) for name, shape in model["shapes"].items()}
    for (corrected, shape), facts in CORRECTIONS.items():
        if corrected == service:
            for fact in facts:
                del shapes[shape][fact]
    return {"metadata": pick(model["metadata"], METADATA), "operations": operations, "shapes": shapes}


def text(model):
    """One operation or shape a line, so that a new version of the source reads well as a diff."""
    line = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    blocks = [f'"metadata":{line(model["metadata"])}']
    for block in ("operations", "shapes"):
        rows = ",\n".join(f"{line(name)}:{line(entry)}" for name, entry in sorted(model[block].items()))
        blocks.append(f'"{block}":{{\n{rows}\n}}')
    return "{" + ",\n".join(blocks) + "}\n"


def main():
    import botocore
    import botocore.loaders

    if botocore.__version__ != BOTOCORE:
        sys.exit(f"these models are cut from botocore {BOTOCORE}, this is {botocore.__version__}: "
                 f"pip install botocore=={BOTOCORE}")
    loader = botocore.loaders.Loader()
    here = pathlib.Path(__file__).resolve().parent
    stale = []
    for service, version in MODELS.items():
        fresh = text(cut(service, loader.load_data(f"{service}/{version}/service-2")))
        path = here / f"{service}.json"
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != fresh:
                stale.append(path.name)
        else:
            path.write_text(fresh)
            print(f"{path.name}: {len(fresh)} bytes")
    if stale:
        sys.exit(f"not what the source gives: {', '.join(stale)}; run {sys.argv[0]} without --check")


if __name__ == "__main__":
    main()
