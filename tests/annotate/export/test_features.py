"""The columns of an export are those that `datasets` itself would write."""

import datasets
import pyarrow as pa
import pytest

from authface.annotate.export.features import Feature, schema_of
from authface.annotate.export.formats import manifest_features
from authface.annotate.export.rows import features


@pytest.mark.parametrize("told", [features(), manifest_features()], ids=["dataset", "manifest"])
def test_the_schema_is_that_of_datasets(told: Feature) -> None:
    theirs = datasets.Features.from_dict(told)
    assert schema_of(told).equals(theirs.arrow_schema, check_metadata=True)
    assert datasets.Features.from_arrow_schema(schema_of(told)) == theirs


def test_a_type_that_nobody_knows_is_refused() -> None:
    with pytest.raises((ValueError, pa.ArrowException)):
        schema_of({"a": {"dtype": "float33", "_type": "Value"}})
