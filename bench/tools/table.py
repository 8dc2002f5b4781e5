"""What was measured: rows for people, raw data for programs."""

import json
import os
import subprocess
import time

from .places import BENCH, CORES, ROOT, Skipped, Unmeasured


def part(values, which):
    """A percentile: part(values, 0.5) is the median."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * which), len(ordered) - 1)]


def spread(values, unit="ms"):
    """p50, p90 and p99 in one cell."""
    digits = 2 if part(values, 0.5) < 10 else 1
    return ", ".join(f"p{name} {part(values, which):.{digits}f}" for name, which in (("50", 0.5), ("90", 0.9), ("99", 0.99))) + f" {unit}"


class Bench:
    """One run: its options, its rows, its raw data."""

    def __init__(self, options):
        self.options = options
        self.short, self.long = options.short, options.long
        self.seconds = 0.3 if options.short else 2.0
        self.rows, self.raw, self.missed, self.failed = [], {}, [], []
        self.out = ROOT / "bench" / "out" / time.strftime("%Y%m%d-%H%M%S")
        self.out.mkdir(parents=True, exist_ok=True)

    def rounds(self, usual, short=3):
        return short if self.short else usual

    def once(self, label, number, port, *arguments, prefix=(), seconds=None):
        """One run of the load generator."""
        command = [*prefix, str(BENCH), "load", "--address", f"127.0.0.1:{port}", "--seconds", str(seconds or self.seconds),
                   "--warmup", str(0.1 if self.short else 0.5), "--raw", str(self.out / f"{label}-{number}.ns"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Unmeasured(f"{label}: {done.stderr}")
        result = json.loads(done.stdout)
        if result["errors"] or not result["requests"]:
            raise Unmeasured(f"{label}: {result}")
        self.raw.setdefault(label, []).append(result)
        return result

    def duel(self, what, label, floor, martlet, target=None, prefix=(), most_us=None, least_rate=None):
        """Floor and Martlet in turns, so that both meet the same minutes, and the medians of each compared.

        `floor` and `martlet` are (port, arguments of the load generator). Targets are a ratio of the p50s, a p50 in
        microseconds, and requests a second; all that are given have to be met.
        """
        runs = {"floor": [], "martlet": []}
        for number in range(self.rounds(5, 1)):
            for side, (port, arguments) in (("floor", floor), ("martlet", martlet)):
                runs[side].append(self.once(f"{label}-{side}", number, port, *arguments, prefix=prefix))
        median = {side: sorted(found, key=lambda run: run["p50_us"])[len(found) // 2] for side, found in runs.items()}
        floors = [run["p50_us"] for run in runs["floor"]]
        self.compare(what, median["martlet"], median["floor"], target, floors, most_us, least_rate)

    def row(self, what, value, floor=None, ratio=None, target=None, met=None):
        """A line of the table; `met` is None where there is no target."""
        self.rows.append((what, value, floor or "", f"{ratio:.1f}x" if ratio else "", target or "", "" if met is None else "yes" if met else "NO"))
        if met is False:
            self.missed.append(what)

    def failure(self, case, why):
        """A case that could not be measured stands in the table as well."""
        self.rows.append((case, f"not measured: {' '.join(str(why).split())[:160]}", "", "", "", ""))
        if not isinstance(why, Skipped):
            self.failed.append(case)

    def compare(self, what, run, floor, target, floors, most_us=None, least_rate=None):
        ratio = run["p50_us"] / floor["p50_us"]
        text = f"p50 {floor['p50_us']:.0f} us"
        if max(floors) > 2 * min(floors):
            # On an idle machine a wake-up on the same core takes a tenth of one on another; the floor has nothing else.
            text += f" ({min(floors):.0f} to {max(floors):.0f})"
        targets = [(f"<= {target}x", target and ratio <= target), (f"<= {most_us} us", most_us and run["p50_us"] <= most_us),
                   (f">= {least_rate}/s", least_rate and run["per_second"] >= least_rate)]
        targets = [(text, met) for (text, met), wanted in zip(targets, (target, most_us, least_rate)) if wanted]
        self.row(what, f"p50 {run['p50_us']:.0f} us, p99 {run['p99_us']:.0f} us, {run['per_second']:.0f}/s", text, ratio,
                 ", ".join(text for text, _ in targets), all(met for _, met in targets) if targets else None)

    def write(self):
        """Everything that was seen, as JSON."""
        self.raw["machine"] = {"cpus": CORES, "kernel": os.uname().release, "load_after": os.getloadavg()}
        self.raw["rows"] = self.rows
        (self.out / "results.json").write_text(json.dumps(self.raw, indent=1))

    def print(self):
        head = ("measured", "martlet", "floor, same run", "ratio", "target", "met")
        widths = [max(len(row[column]) for row in [head, *self.rows]) for column in range(len(head))]
        for row in [head, tuple("-" * width for width in widths), *self.rows]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
