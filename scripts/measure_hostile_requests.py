"""Send thousands of hostile requests to a real server and tell what came back.

Run it from the root of the repository with the extra ``test`` installed:

    OMP_NUM_THREADS=1 PYTHONPATH=.:training python scripts/measure_hostile_requests.py

It starts an identity provider and `privdiff serve` on free ports of this machine, with the embedded
bundle, and ends both.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from privdiff_infer.model.bundle import find_bundle
from privdiff_infer.vocabulary import DEFAULT_BUNDLE
from tests.integration.siege import Tally, Target, besiege, open_target


def main() -> int:
    """Measure, print, and tell by the exit code whether all was as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--schemathesis", type=int, default=20, help="Examples an operation.")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make_keys(folder)
        bundle = find_bundle(DEFAULT_BUNDLE)
        with open_target(folder, bundle) as target:
            tally = besiege(target, chosen.seed, chosen.count)
            _print(tally, target.attacker.dropped)
            described = _schemathesis(target, folder, chosen.schemathesis)
    print(f"schemathesis   exit code {described}")
    return int(bool(tally.wrong or tally.leaks or described))


def _print(tally: Tally, dropped: int) -> None:
    for kind, sent in sorted(tally.sent.items()):
        print(f"{kind:<14}{sent:>6}")
    print("statuses      ", dict(sorted(tally.statuses.items())))
    print(f"not a 4xx {len(tally.wrong)}; with text of a canary {len(tally.leaks)}; ", end="")
    print(f"connections dropped {dropped}; {tally.seconds:.0f} s", flush=True)
    for wrong in tally.wrong[:20]:
        print("  ", wrong, flush=True)


def _make_keys(folder: Path) -> None:
    """Let the server have keys of its own, which end with it."""
    for variable in ("PRIVDIFF_KEY_FILE", "PRIVDIFF_AUDIT_KEY_FILE"):
        file = folder / variable.lower()
        file.touch(mode=0o600)
        file.write_text(os.urandom(32).hex())
        os.environ[variable] = str(file)


def _schemathesis(target: Target, folder: Path, examples: int) -> int:
    """Let schemathesis break our own description; what starts long work is left out."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{target.server.url}/openapi.json"),
        *("--checks", "not_a_server_error", "--mode", "all", "--phases", "fuzzing"),
        *("--max-examples", str(examples), "--generation-deterministic"),
        *("--exclude-path-regex", "^/(train|batch)/"),
        *("--header", f"Authorization: Bearer {target.server.token}", "--no-color"),
    ]
    return subprocess.run(command, check=False, cwd=folder).returncode


if __name__ == "__main__":
    sys.exit(main())
