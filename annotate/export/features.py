"""The typed columns of an export, as the library `datasets` writes them into a Parquet file, without that library.

A column is described in the words of its JSON: ``{"dtype": "float32", "_type": "Value"}``. A test opens the files
with `datasets` and compares the schema with its own.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

Feature = dict[str, Any]
IMAGE: Feature = {"_type": "Image"}


def value(dtype: str) -> Feature:
    """One value of a type such as ``float32``."""
    return {"dtype": dtype, "_type": "Value"}


def rows_of(feature: Feature, length: int | None = None) -> Feature:
    """A list of one kind, of any length unless it is given."""
    return {"feature": feature, **({} if length is None else {"length": length}), "_type": "List"}


def schema_of(features: Feature) -> pa.Schema:
    """The schema of a Parquet file with these columns, whose metadata tell `datasets` their types."""
    told = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema([(name, _arrow(feature)) for name, feature in features.items()], metadata=told)


def _arrow(feature: Feature) -> pa.DataType:
    kind = feature.get("_type")
    if kind == "Image":
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    if kind == "Value":
        dtype = feature["dtype"]
        return pa.bool_() if dtype == "bool" else pa.type_for_alias(dtype)
    if kind == "List":
        return pa.list_(_arrow(feature["feature"]), feature.get("length", -1))
    return pa.struct([(name, _arrow(inner)) for name, inner in feature.items()])
