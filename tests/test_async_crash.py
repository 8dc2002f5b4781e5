"""Accepted events while the server is killed again and again: each runs at least once, none is lost.

CI runs fewer; `--full-soak` is 100,000 events and ten kills.
"""

import collections
import random
import threading
import time

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from harness import aws, lab
from harness.waiting import until

pytestmark = pytest.mark.slow

CALLERS = 8
WORK = "def handler(event, context):\n    return event\n"
# A kill takes the last moment of the log with it, so nothing that runs between kills proves anything. Each success is told to a
# witness, which is too large for the server until the kills are over: what it is told waits in the queue, and is said afterwards.
WITNESS = """
def handler(event, context):
    print('seen', event['requestContext']['requestId'], context.aws_request_id)
"""
SMALL, LARGE = (f"memory_budget_mb = {mb}\nlog_level = \"error\"\n" for mb in (1024, 4096))


class Callers:
    """Sends numbered events from several threads, through kills and restarts, and remembers those that were accepted."""

    def __init__(self, server, total):
        self.server, self.total, self.next = server, total, 0
        self.accepted, self.lock = set(), threading.Lock()
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(CALLERS)]
        for thread in self.threads:
            thread.start()

    def take(self):
        with self.lock:
            number, self.next = self.next, self.next + 1
            return number if number < self.total else None

    def work(self):
        client = aws.client(self.server, pool=1)
        while (number := self.take()) is not None:
            while True:
                try:
                    answer = client.invoke(FunctionName="work", InvocationType="Event", Payload=str(number).encode())
                    break
                except (BotoCoreError, ClientError, OSError):
                    # Killed: whether it was accepted nobody knows, so it is sent again.
                    time.sleep(0.05)
            assert answer["StatusCode"] == 202
            with self.lock:
                self.accepted.add(answer["ResponseMetadata"]["RequestId"])


def told(server):
    """Which events the witness was told of: for each the ids of what it was told by, more than one where an event ran twice."""
    logs, seen = aws.client(server, "logs", timeout=300), collections.defaultdict(set)
    for message in aws.log_messages(logs, "witness", "seen"):
        word, *ids = message.split()
        if word == "seen":
            seen[ids[0]].add(ids[1])
    return seen


def test_every_accepted_event_runs_though_the_server_is_killed(new_server, python, request):
    full = request.config.getoption("--full-soak")
    total, kills = (100_000, 10) if full else (600, 3)
    server = new_server(config=SMALL).start()
    client = aws.client(server)
    lab.create(client, WORK, python, name="work", Timeout=10, MemorySize=512)
    lab.create(client, WITNESS, python, name="witness", Timeout=10, MemorySize=2048)
    arn = f"arn:aws:lambda:{aws.REGION}:{aws.ACCOUNT}:function:witness"
    client.put_function_event_invoke_config(FunctionName="work", DestinationConfig={"OnSuccess": {"Destination": arn}})
    chance = random.Random(7)
    callers = Callers(server, total)
    for kill in range(1, kills + 1):
        mark = total * kill // (kills + 1)
        until(lambda: len(callers.accepted) >= mark, f"{mark} accepted events", 1800, every=0.01)
        threading.Event().wait(chance.uniform(0, 0.2))
        server.kill()
        server.start()
    for thread in callers.threads:
        thread.join(1800)
    assert len(callers.accepted) == total

    server.kill()
    (server.base / "martlet.toml").write_text(LARGE)
    server.start()

    def backlog():
        return aws.Raw(server, service="martlet").send("GET", "/_martlet/events").json["Backlog"]

    until(lambda: backlog() == 0, "every event to be done", 1800 if full else 120, every=0.2)
    until(lambda: not callers.accepted - told(server).keys(), "every accepted event to be seen", 20, every=1)
    again = sum(len(ids) - 1 for ids in told(server).values())
    print(f"{total} events, {kills + 1} kills: none lost, {again} ran more than once")
