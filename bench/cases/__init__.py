"""One file a case, or a few that belong together. A case is a function `(bench, base, flags)`: it measures into `bench`, keeps its
files in the directory `base`, and starts servers with `flags` at least.

The second number is the most seconds that a case may take in a usual run; it is stopped then, and the others go on.
"""

from . import at_rest, burst, cold, deploy, events, footprint, fork, many, rate, stream, warm

CASES = {
    "warm": (warm.measure, 540),
    "cold": (cold.measure, 240),
    "fork": (fork.measure, 200),
    "burst": (burst.measure, 60),
    "rate": (rate.measure, 90),
    "stream": (stream.measure, 120),
    "memory": (footprint.measure, 120),
    "events": (events.measure, 240),
    "deploy": (deploy.measure, 180),
    "many": (many.measure, 180),
    "rest": (at_rest.measure, 60),
}
