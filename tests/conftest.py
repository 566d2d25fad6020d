"""What all tests share: no deadlines (two busy cores), no network, quiet libraries."""

import os

from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line: see authface.cli.main
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
settings.register_profile("authface", deadline=None)
settings.load_profile("authface")
