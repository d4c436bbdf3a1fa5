import subprocess
import sys

import pytest
from transformers.utils import logging

from helpers import quiet


def test_loading_is_quiet_and_all_is_as_before_afterwards():
    logging.enable_progress_bar()
    before = logging.get_verbosity()

    def fail_while_quiet():
        with quiet.quiet_loading():
            assert not logging.is_progress_bar_enabled()
            assert logging.get_verbosity() == logging.ERROR
            raise KeyError

    with pytest.raises(KeyError):
        fail_while_quiet()
    assert logging.is_progress_bar_enabled()
    assert logging.get_verbosity() == before


def run(code):
    return subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)


def test_a_run_shows_no_bars_and_tells_nobody():
    code = """
import os
for name in ("HF_HUB_DISABLE_TELEMETRY", "TOKENIZERS_PARALLELISM"):
    os.environ.pop(name, None)
from helpers.quiet import quiet_libraries
quiet_libraries()
import datasets, huggingface_hub.constants
from transformers.utils import logging
print(huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY, datasets.are_progress_bars_disabled(),
      logging.is_progress_bar_enabled(), os.environ["TOKENIZERS_PARALLELISM"])
"""
    assert run(code).stdout.split() == ["True", "True", "False", "false"]


def test_only_the_one_warning_is_silenced():
    code = "import helpers, warnings; warnings.warn('IProgress not found. Please'); warnings.warn('something else')"
    said = run(code).stderr
    assert "IProgress" not in said.replace(code, "")
    assert "something else" in said
