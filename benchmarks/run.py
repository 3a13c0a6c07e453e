#!/usr/bin/env python3
"""Runs the hub and its peers in turn on the same load and prints what each does, and the ratios. See README.md."""

import argparse
import json
import resource
import signal
import sys
from typing import Any

import hub
import measure
import report
import subjects
import tools

DEVICES = 100
SUBJECTS = ("ceiling", "floor", "node", "python", "hub")
HOLDERS = {"python": "mosquitto", "node": "aedes", "floor": "floor (uvloop)"}
"""What holds the device connections, where it is not the subject's own name."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tls", action="store_true", help="only over TLS (default: plain, then TLS)")
    parser.add_argument("--plain", action="store_true", help="only over plain TCP")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement (default 10)")
    parser.add_argument("--warmup", type=float, default=3, help="seconds before each (default 3)")
    parser.add_argument("--rounds", type=int, default=5, help="default 5; medians are reported")
    parser.add_argument("--callers", type=int, default=32, help="concurrent callers (default 32)")
    parser.add_argument("--only", help="which, by comma (default: all; with --devices: hub)")
    parser.add_argument(
        "--devices",
        default="mqtt",
        metavar="P,P",
        help=f"what the hub's devices speak: a run for each of {','.join(hub.PROTOCOLS)} (default: mqtt)",
    )
    parser.add_argument("--idle", type=int, default=5000, metavar="N", help="idle connections for memory; 0: skip")
    parser.add_argument(
        "--connected",
        nargs="?",
        const="10,1000,15000",
        metavar="N,N",
        help="instead: cost per call by number of connected devices (default 10,1000,15000)",
    )
    parser.add_argument("--called", type=int, metavar="N", help="with --connected: how many of them are called")
    parser.add_argument("--cold-start", action="store_true", help="instead: seconds from exec to ready")
    parser.add_argument("--python", default=hub.default_python(), help="interpreter that runs the hub")
    given = parser.parse_args()
    given.only = (given.only or ("hub" if given.devices != "mqtt" else ",".join(SUBJECTS))).split(",")
    given.devices = given.devices.split(",")
    for option, values, known in (("only", given.only, SUBJECTS), ("devices", given.devices, hub.PROTOCOLS)):
        if unknown := set(values) - set(known):
            parser.error(f"--{option} knows {', '.join(known)}; not {', '.join(unknown)}")
    return given


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def chosen(given: argparse.Namespace) -> list[subjects.Subject]:
    """The subjects that this machine can run; the others are named with the line to type."""
    every = [subjects.Ceiling(), subjects.Floor(), subjects.Node(), subjects.Python()]
    every += [hub.Hub(given.python, protocol) for protocol in given.devices]
    able = []
    for subject in every:
        if subject.name.split()[0] not in given.only:
            continue
        try:
            subject.prepare()
            able.append(subject)
        except tools.Missing as missing:
            note(f"skipped {subject.name}: {missing}")
    return able


def modes(given: argparse.Namespace) -> list[bool]:
    return [tls for tls in (False, True) if given.tls == given.plain or tls == given.tls]


def plan(given: argparse.Namespace) -> measure.Plan:
    return measure.Plan(given.seconds, given.warmup, given.callers)


def named(tls: bool) -> str:
    return "TLS" if tls else "plain"


def call_rounds(given: argparse.Namespace, able: list[subjects.Subject], tls: bool) -> list[report.Round]:
    rounds: list[report.Round] = []
    failed: set[str] = set()
    for number in range(given.rounds):
        figures: report.Round = {}
        for subject in able:
            if subject.name in failed:
                continue
            try:
                with subject.start(tls, DEVICES) as running:
                    figures[subject.name] = one = measure.calls(running, running.devices, plan(given))
                note(f"{named(tls)} {number + 1}/{given.rounds} {subject.name}: {one['calls_per_second']:,.0f} calls/s")
            except tools.Missing as missing:
                failed.add(subject.name)
                note(f"skipped {subject.name}: {missing}")
        rounds.append(figures)
    return rounds


def idle_rows(given: argparse.Namespace, able: list[subjects.Subject], tls: bool) -> list[report.IdleRow]:
    rows = []
    for subject in able:
        if subject.name == "ceiling" or not given.idle:
            continue
        try:
            with subject.start(tls, measure.BASE + given.idle) as running:
                name = HOLDERS.get(subject.name, subject.name)
                rows.append((name, named(tls), measure.idle(running, given.idle)))
            note(f"{named(tls)} idle {name}: {rows[-1][2]['kb_per_connection']:.1f} KB")
        except tools.Missing as missing:
            note(f"skipped {subject.name}: {missing}")
    return rows


def connected_rounds(given: argparse.Namespace, subject: subjects.Subject, tls: bool) -> list[report.Round]:
    """All sizes against one process that knows the most devices; the same few are called, so that nothing differs
    but how many are connected. (More devices called means fewer packets per read, which costs the floor as well.)"""
    sizes = [int(size) for size in given.connected.split(",")]
    rounds: list[report.Round] = []
    with subject.start(tls, max(sizes)) as running:
        for _ in range(given.rounds):
            figures: report.Round = {}
            for size in sizes:
                one = measure.calls(running, running.devices[:size], plan(given), given.called or min(sizes))
                figures[f"{size:,}"] = one
                note(f"{named(tls)} {subject.name} {size}: {one['server_us_per_call']:.1f} us CPU per call")
            rounds.append(figures)
    return rounds


def compare(given: argparse.Namespace, able: list[subjects.Subject]) -> dict[str, Any]:
    results: dict[str, Any] = {"calls": {}, "idle": []}
    for tls in modes(given):
        results["calls"][named(tls)] = call_rounds(given, able, tls)
        results["idle"] += idle_rows(given, able, tls)
    print()
    for kind, rounds in results["calls"].items():
        report.calls(f"Calls, {kind}", rounds)
    report.idle(results["idle"])
    return results


def by_connected(given: argparse.Namespace, able: list[subjects.Subject]) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for tls in modes(given):
        for subject in able:
            title = f"{subject.name}, {named(tls)}, by connected devices"
            try:
                results[title] = connected_rounds(given, subject, tls)
            except tools.Missing as missing:
                note(f"skipped {subject.name}: {missing}")
                continue
            report.connected(title, results[title])
    return results


def main() -> int:
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: every server is ended on the way out
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if len(subjects.CORES) < 2:
        note("only one core: server and load share it, and the figures mean little")
    try:
        tools.load_tool()
        tools.certificate()
        if given.cold_start:
            results: dict[str, Any] = hub.Hub(given.python).start_times(given.rounds)
            report.starts(results)
        else:
            able = chosen(given)
            results = by_connected(given, able) if given.connected else compare(given, able)
    except tools.Missing as missing:
        note(str(missing))
        return 1
    (tools.BUILD / "results.json").write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
