"""Run the official test suite of the Python array API on a device, and compare with the failures on record.

    PYTHONPATH=FOLDER .cache/venv/bin/python -m scripts.array_suite CHECKOUT [--stubs FOLDER] [--device cpu] [--record]

CHECKOUT is a checkout of ``data-apis/array-api-tests``; its submodule ``array-api`` (or ``--stubs``, or a folder of
that name beside it) has the signatures of the standard. The suite imports ``ndindex`` and ``pytest-json-report``, which
a folder on PYTHONPATH can provide. ``-k`` selects tests as pytest does; nothing is compared then.

The suite runs from a temporary copy. It cannot be imported for a module without a complex dtype, so the copy has a
guard at three places (:data:`GUARDS`); nothing else is changed. scripts/array_suite.txt lists the tests that do not
apply, and for each device those that fail, with reasons. The exit code is 1 if a test fails that is not listed;
``--record`` writes the list anew and keeps its reasons.

This module is also the pytest plugin that makes the settings, the same for every device. In a page, set
:func:`environment`, run ``pytest.main(arguments(device))`` in the copy, and give the outcomes to :func:`report`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
RECORD = Path(__file__).with_suffix(".txt")
NOT_APPLICABLE = "not applicable"
EXAMPLES, SECONDS = 20, 90  # of a test
OUTCOMES, DEVICE = "TENSORCOMMONS_SUITE_OUTCOMES", "TENSORCOMMONS_SUITE_DEVICE"
ABSENT = ("complex64", "complex128", "uint16", "uint64", "int16")  # dtypes
ABSENT_ON = {"cpu": (), "webgpu": ("float64", "int64", "int8", "uint8"), "webnn": ("float64",)}
GUARDS = (
    (
        "dtype_helpers.py",
        "    [(dt, dtype_nbits[dt]) for dt in complex_dtypes], key=lambda x: x[1]\n)[0]",
        "    [(dt, dtype_nbits[dt]) for dt in complex_dtypes], key=lambda x: x[1], default=(None, 0)\n)[0]",
    ),
    (
        "test_signatures.py",
        "cmplx_name = dh.dtype_to_name[dh.widest_complex_dtype]",
        'cmplx_name = dh.dtype_to_name[dh.widest_complex_dtype] if dh.complex_dtypes else "complex128"',
    ),
    (
        "dtype_helpers.py",
        '    {"complex64": xp.float32, "complex128": xp.float64}',
        '    {"complex64": xp.float32, "complex128": getattr(xp, "float64", None)}',
    ),
)


def prepare(checkout: Path, stubs: Path, copy: Path) -> None:
    """Copy the suite and its stubs to ``copy``, with the guards."""
    ignored = shutil.ignore_patterns(".git", "array-api", "__pycache__", ".hypothesis")
    shutil.copytree(checkout, copy, ignore=ignored, dirs_exist_ok=True)
    for folder in ("spec/2024.12", "src/array_api_stubs"):
        shutil.copytree(stubs / folder, copy / "array-api" / folder, ignore=ignored)
    for name, old, new in GUARDS:
        file = copy / "array_api_tests" / name
        text = file.read_text("utf-8")
        if text.count(old) != 1:
            raise SystemExit(f"{name} of the suite is not the expected version: {old.strip()!r} must occur once")
        file.write_text(text.replace(old, new), "utf-8")


def environment(device: str) -> dict[str, str]:
    """Return the variables that name the module, the device, and the dtypes that it does not have."""
    return {
        "ARRAY_API_TESTS_MODULE": "tensorcommons",
        "ARRAY_API_TESTS_VERSION": "2024.12",
        "ARRAY_API_TESTS_SKIP_DTYPES": ",".join((*ABSENT, *ABSENT_ON[device])),
        DEVICE: device,
    }


def arguments(chosen: str | None = None) -> list[str]:
    """Return the arguments of pytest."""
    options = ["array_api_tests", "-p", "scripts.array_suite", "-p", "no:cacheprovider", "-q", "--tb=line", "-rN"]
    options += [f"--max-examples={EXAMPLES}", "--derandomize", "--disable-deadline"]
    return options + (["-k", chosen] if chosen else [])


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Set the device and Hypothesis: no shrinking, no health checks."""
    from hypothesis import HealthCheck, Phase, settings

    import tensorcommons as tc

    current = settings.get_profile("array-api-tests")
    phases = (Phase.explicit, Phase.reuse, Phase.generate)
    settings.register_profile("array-suite", current, phases=phases, suppress_health_check=list(HealthCheck))
    settings.load_profile("array-suite")
    tc.set_default_device(os.environ[DEVICE])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test after its time, where the runtime has alarms."""

    def over(*_: object) -> None:
        raise TimeoutError(f"the test took longer than {SECONDS} s")

    if not hasattr(signal, "setitimer") or sys.platform == "emscripten":
        return (yield)
    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


_outcomes: dict[str, list[str]] = {}  # of each test: "passed", "failed" or "skipped", and the last line of its error


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note the outcome of a test; an error before or after it is a failure."""
    if report.when == "call" or report.outcome != "passed":
        text = str(getattr(getattr(report.longrepr, "reprcrash", None), "message", report.longrepr or ""))
        name = report.nodeid.removeprefix("array_api_tests/")
        _outcomes[name] = [report.outcome, " ".join(text.split())[:160]]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the outcomes, in the process that collects them."""
    if OUTCOMES in os.environ and not hasattr(session.config, "workerinput"):
        Path(os.environ[OUTCOMES]).write_text(json.dumps(_outcomes), "utf-8")


def read_record() -> dict[str, dict[str, str]]:
    """Return the reason of each listed test, by section: a device, or :data:`NOT_APPLICABLE` (regular expressions)."""
    sections: dict[str, dict[str, str]] = defaultdict(dict)
    section = ""
    for line in RECORD.read_text("utf-8").splitlines() if RECORD.exists() else ():
        if line.startswith("["):
            section = line.strip("[]")
        elif line.strip() and not line.startswith("#"):
            name, _, reason = line.partition("  ")
            sections[section][name] = reason.strip()
    return sections


def write_record(sections: dict[str, dict[str, str]]) -> None:
    """Write the list: a line for each test, its reason after two spaces."""
    lines = [
        "# The official suite of the array API: see scripts/array_suite.py, which writes all sections but the first."
    ]
    for section in (NOT_APPLICABLE, *ABSENT_ON):
        own = sections.get(section, {})
        names = own if section == NOT_APPLICABLE else sorted(own)
        lines += ["", f"[{section}]", *(f"{name}  {own[name]}" for name in names)]
    RECORD.write_text("\n".join(lines) + "\n", "utf-8")


def report(outcomes: dict[str, list[str]], device: str, *, record: bool = False) -> int:
    """Print what passed of what applies, by area; return the exit code.

    A test that the suite skips counts as one that fails, unless it does not apply.
    """
    sections = read_record()
    excluded = re.compile("|".join(sections[NOT_APPLICABLE]) or "(?!)")
    known = sections[device]
    applicable = {name: outcome for name, outcome in outcomes.items() if not excluded.search(name)}
    failed = {name: text for name, (outcome, text) in applicable.items() if outcome != "passed"}
    total, passed = Counter[str](), Counter[str]()
    for name in applicable:
        area = name.partition(".py")[0].removeprefix("test_")
        total[area] += 1
        passed[area] += name not in failed
    for area in sorted(total):
        print(f"{area:45} {passed[area]:5} / {total[area]:<5} {passed[area] / total[area]:7.1%}")
    share = passed.total() / max(total.total(), 1)
    print(f"{'array API 2024.12 on ' + device:45} {passed.total():5} / {total.total():<5} {share:7.1%}")
    for name in sorted(set(failed) - set(known)):
        print(f"fails, not listed: {name}  {failed[name]}")
    for name in sorted((set(known) & set(applicable)) - set(failed)):
        print(f"passes, but is listed as failing: {name}")
    if record:
        sections[device] = {name: known.get(name) or failed[name] for name in failed}
        write_record(sections)
        return 0
    return int(bool(set(failed) - set(known)) or not applicable)


def main() -> int:
    """Run the suite under CPython with two workers, and report."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--stubs", type=Path)
    parser.add_argument("--device", choices=("cpu",), default="cpu", help="CPython has the CPU device")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("-k", dest="chosen")
    options = parser.parse_args()
    if options.record and options.chosen:
        parser.error("--record needs all tests")
    checkout = options.checkout.resolve()
    stubs = options.stubs or next(
        (s for s in (checkout / "array-api", checkout.parent / "array-api") if (s / "src").exists()), None
    )
    if stubs is None:
        parser.error("the stubs are missing: check out the submodule array-api, or pass --stubs")
    with tempfile.TemporaryDirectory() as folder:
        copy, outcomes = Path(folder) / "suite", Path(folder) / "outcomes.json"
        prepare(checkout, Path(stubs), copy)
        path = os.pathsep.join([str(ROOT / "pyodide_pkg"), str(ROOT), os.environ.get("PYTHONPATH", "")])
        variables = {**os.environ, **environment(options.device), "PYTHONPATH": path, OUTCOMES: str(outcomes)}
        command = [sys.executable, "-m", "pytest", *arguments(options.chosen), "-n", "2"]
        subprocess.run(command, cwd=copy, env={**variables, "OPENBLAS_NUM_THREADS": "1"}, check=False)
        found = json.loads(outcomes.read_text("utf-8")) if outcomes.exists() else {}
    if options.chosen:
        for name, (outcome, text) in found.items():
            print(f"{outcome:8} {name}  {text}")
        return 0
    return report(found, options.device, record=options.record)


if __name__ == "__main__":
    sys.exit(main())
