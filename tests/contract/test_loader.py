"""JavaScript of the package without a page that registers it: files with imports become one URL."""

from __future__ import annotations

import subprocess

from tensorcommons.bridge.loader import _data_url


def test_a_file_with_imports_becomes_one_url_that_loads():
    url = _data_url("tokenizer.js", {})
    assert len(url) < 4_000_000
    program = "import(require('fs').readFileSync(0, 'utf8')).then((module) => console.log(typeof module.encodeBatch))"
    ran = subprocess.run(["node", "-e", program], input=url, capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "function"
