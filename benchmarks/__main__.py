"""Run the benchmarks (`python -m benchmarks [NAME …] [--quick] [--write]`) from the project's folder."""

from __future__ import annotations

import argparse
import importlib
import signal

from benchmarks import machine, programs, results
from otn.dev import train

NAMES = ("channel", "action", "answer", "capture", "start", "estimate", "broadcast", "million")


def main() -> int:
    """Measure what was asked for; return the exit code. A missed target is a finding, no failure."""
    options = _options()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # so that everything that was started is ended
    if train.main():
        return 1
    try:
        for name in options.names or NAMES:
            _run(name, options)
    except KeyboardInterrupt:
        return 130
    programs.tear_down()  # after a failure its logs stay
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="a short run that only shows that they work")
    parser.add_argument("--write", action="store_true", help=f"put the figures into {results.DOCUMENT}")
    options = parser.parse_args()
    if options.quick and options.write:
        parser.error("a quick run's figures mean nothing: --write needs a whole one")
    return options


def _run(name: str, options: argparse.Namespace) -> None:
    load_before = machine.load()
    print(f"\n{name}: measuring (load {load_before:.1f}) …", flush=True)
    if load_before > 1:
        print("  The machine has other things to do: compare the ratios, not the figures.", flush=True)
    finding = importlib.import_module(f"benchmarks.{name}").run(quick=options.quick)
    results.show(finding)
    if options.write:
        results.write(finding, load_before)


if __name__ == "__main__":
    raise SystemExit(main())
