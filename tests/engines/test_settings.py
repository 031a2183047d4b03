"""What of the drawing decides a stage's result, and what does not."""

import importlib.util

from coderl.engines.settings import SamplingConfig
from coderl.settings import decisive


def test_which_engine_auto_is_decides_a_request(monkeypatch):
    """A folder drawn without CTranslate2 is not continued with it; rows side by side decide nothing."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    without = decisive(SamplingConfig())
    assert without["engine"] == "auto"
    assert not {"batch_rows", "cache_gib", "vllm_url"} & without.keys()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert decisive(SamplingConfig())["engine"] == "auto with ctranslate2"
    assert decisive(SamplingConfig(engine="transformers"))["engine"] == "transformers"
