"""Elastic's client is imported without what it would load for nothing."""

import subprocess
import sys


def test_a_process_that_searches_does_not_load_pyarrow() -> None:
    """Though it is installed here; whoever needs it can still import it after."""
    program = (
        "import sys, polyglot_persistence.adapters.elasticsearch.index;"
        "assert 'pyarrow' not in sys.modules;"
        "import pyarrow"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
