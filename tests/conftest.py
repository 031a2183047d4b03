"""What every test may ask for."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # many threads on a busy machine make tiny models a hundred times slower


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets (not part of the project); tests that need it skip where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CODERL_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set CODERL_SHARED_DATA)")
    return folder
