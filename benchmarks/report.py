"""Tables of medians and ratios. Judges nothing, except to say when a figure cannot be trusted."""

from statistics import median
from typing import Any

Round = dict[str, dict[str, Any]]
"""Subject -> the load tool's figures, of one round."""
IdleRow = tuple[str, str, dict[str, Any]]
"""What holds the connections, its transport, figures."""

CALLS = (
    ("calls/s", "calls_per_second", "{:,.0f}"),
    ("p50 ms", "p50_ms", "{:.2f}"),
    ("p99 ms", "p99_ms", "{:.2f}"),
    ("max ms", "max_ms", "{:.1f}"),
    ("CPU us/call", "server_us_per_call", "{:.1f}"),
    ("server busy", "server_busy", "{:.0%}"),
    ("load busy", "load_busy", "{:.0%}"),
)
TROUBLE = ("not_200", "wrong", "errors", "unanswered", "devices_dropped")
DISTURBED = 0.9


def table(head: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, ["-" * width for width in widths], *rows]:
        figures = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("| " + " | ".join([row[0].ljust(widths[0]), *figures]) + " |")
    print()


def names(rounds: list[Round]) -> list[str]:
    return list(dict.fromkeys(name for figures in rounds for name in figures))


def of(rounds: list[Round], name: str, figure: str) -> float:
    return median(float(figures[name][figure]) for figures in rounds if name in figures)


def calls(title: str, rounds: list[Round]) -> None:
    subjects = names(rounds)
    if not subjects:
        return
    print(f"{title}: medians of {len(rounds)}\n")
    table(
        ["", *(label for label, _, _ in CALLS)],
        [[name, *(form.format(of(rounds, name, key)) for _, key, form in CALLS)] for name in subjects],
    )
    ratios(rounds, subjects)
    notes(rounds, subjects)


def ratios(rounds: list[Round], subjects: list[str]) -> None:
    """Ratios within each round, then their median: rounds differ more than subjects within one."""
    base = next((name for name in ("hub", "floor") if name in subjects), "")
    rows = []
    for name in subjects:
        one, other = (name, base) if name.startswith("hub ") else (base, name)
        both = [figures for figures in rounds if one in figures and other in figures]
        if name in (base, "ceiling") or not both:
            continue
        rate = [f[one]["calls_per_second"] / f[other]["calls_per_second"] for f in both]
        cost = [f[other]["server_us_per_call"] / max(f[one]["server_us_per_call"], 1e-9) for f in both]
        spread = f"{min(rate):.2f} .. {max(rate):.2f}"
        rows.append([f"{one} / {other}", f"{median(rate):.2f}", spread, f"{median(cost):.2f}"])
    if rows:
        table(["ratio", "by calls/s", "its range", "by CPU per call"], rows)


def notes(rounds: list[Round], subjects: list[str]) -> None:
    for name in subjects:
        mine = [figures[name] for figures in rounds if name in figures]
        for key in TROUBLE:
            if total := sum(figures[key] for figures in mine):
                sample = next((figures["sample"] for figures in mine if figures["sample"]), "")
                print(f"! {name}: {key} {total:,} {sample}")
        busy = [max(figures["server_busy"], figures["load_busy"]) for figures in mine]
        if short := sum(value < DISTURBED for value in busy):
            print(f"! {name}: in {short} of {len(mine)} rounds others used the cores; trust CPU per call")
        if name != "ceiling" and of(rounds, name, "load_busy") > of(rounds, name, "server_busy"):
            print(f"! {name}: limited by the load tool, not by the server")
    print()


def idle(rows: list[IdleRow]) -> None:
    if not rows:
        return
    print("Idle device connections, one more beyond the first 100\n")
    table(
        ["", "transport", "connections", "KB each", "connects/s"],
        [
            [name, kind, f"{f['connected']:,}", f"{f['kb_per_connection']:.1f}", f"{f['connects_per_second']:,.0f}"]
            for name, kind, f in rows
        ],
    )


def connected(title: str, rounds: list[Round]) -> None:
    """Here a 'subject' is a number of connected devices."""
    calls(title, rounds)
    sizes = names(rounds)
    if len(sizes) > 1:
        first = of(rounds, sizes[0], "server_us_per_call")
        relative = ", ".join(f"{size}: {of(rounds, size, 'server_us_per_call') / first:.2f}" for size in sizes)
        print(f"CPU per call relative to {sizes[0]}: {relative}\n")


def starts(kinds: dict[str, list[float]]) -> None:
    print("From exec to the first 200 of /health/ready\n")
    table(
        ["", "median s", "min s", "max s"],
        [[kind, f"{median(t):.3f}", f"{min(t):.3f}", f"{max(t):.3f}"] for kind, t in kinds.items()],
    )
