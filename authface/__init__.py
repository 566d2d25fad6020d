"""authface: build face datasets, train a face prior, restore faces.

One arrow of stages that talk through files only: ``authface.curate`` -> ``authface.annotate`` ->
``authface.train`` -> ``authface.restore``, and ``authface.evaluate`` beside it.
"""

__version__ = "0.1.0"
