"""Aliases: names for versions, moved by one atomic step; weighted splits, canaries, and deploys under load that drop nothing."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import aws, lab
from harness.waiting import until
from harness.zips import make_zip

ANSWER = "def handler(event, context):\n    return [{value!r}, context.function_version, context.invoked_function_arn]\n"
CALLS = 10_000
CALLERS = 8


def source(value):
    return ANSWER.format(value=value)


def publish(lam, name, value):
    """Another version, whose handler answers with `value`."""
    lab.change(lam, "update_function_code", FunctionName=name, ZipFile=make_zip({"lambda_function.py": source(value)}))
    return lam.publish_version(FunctionName=name)["Version"]


@pytest.fixture
def function(lam, deploy, python):
    """Version 1 answers "one", version 2 "two"."""
    function = deploy(source("one"), python, MemorySize=256)
    assert lam.publish_version(FunctionName=function.name)["Version"] == "1"
    assert publish(lam, function.name, "two") == "2"
    return function


def executed(function, **more):
    response = function.invoke(**more)
    assert "FunctionError" not in response, response["Answer"]
    assert response["Answer"][1] == response["ExecutedVersion"], "the header tells the version that ran"
    return response


def test_a_call_of_an_alias_runs_its_version_and_says_so(lam, function):
    created = lam.create_alias(FunctionName=function.name, Name="live", FunctionVersion="1", Description="the public one")
    assert created["ResponseMetadata"]["HTTPStatusCode"] == 201
    arn = lam.get_function_configuration(FunctionName=function.name)["FunctionArn"]
    assert created["AliasArn"] == f"{arn}:live"
    assert "RoutingConfig" not in created and len(created["RevisionId"]) == 36
    response = executed(function, Qualifier="live")
    assert response["Answer"] == ["one", "1", f"{arn}:live"], "the function sees the ARN as it was called"
    for named in (f"{function.name}:live", f"{arn}:live", f"{aws.ACCOUNT}:function:{function.name}:live"):
        assert lab.Function(lam, named).invoke()["ExecutedVersion"] == "1"
    moved = lam.update_alias(FunctionName=function.name, Name="live", FunctionVersion="2")
    assert moved["Description"] == "the public one" and moved["RevisionId"] != created["RevisionId"]
    assert executed(function, Qualifier="live")["ExecutedVersion"] == "2"
    shown = lam.get_function(FunctionName=function.name, Qualifier="live")["Configuration"]
    assert (shown["FunctionArn"], shown["Version"]) == (f"{arn}:live", "2")


def test_an_alias_of_latest_follows_it(lam, function):
    lam.create_alias(FunctionName=function.name, Name="dev", FunctionVersion="$LATEST")
    assert executed(function, Qualifier="dev")["ExecutedVersion"] == "$LATEST"
    lab.change(lam, "update_function_code", FunctionName=function.name, ZipFile=make_zip({"lambda_function.py": source("newer")}))
    assert executed(function, Qualifier="dev")["Answer"][0] == "newer"


def test_a_stale_revision_of_an_alias_changes_nothing(lam, function):
    old = lam.create_alias(FunctionName=function.name, Name="live", FunctionVersion="1")["RevisionId"]
    new = lam.update_alias(FunctionName=function.name, Name="live", Description="x", RevisionId=old)["RevisionId"]
    with pytest.raises(lam.exceptions.PreconditionFailedException) as refused:
        lam.update_alias(FunctionName=function.name, Name="live", FunctionVersion="2", RevisionId=old)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    now = lam.get_alias(FunctionName=function.name, Name="live")
    assert (now["FunctionVersion"], now["RevisionId"]) == ("1", new)


def test_aliases_are_listed_by_page_and_by_version(lam, function):
    for name, version in (("b", "1"), ("a", "2"), ("c", "1")):
        lam.create_alias(FunctionName=function.name, Name=name, FunctionVersion=version)
    pages = list(lam.get_paginator("list_aliases").paginate(FunctionName=function.name, PaginationConfig={"PageSize": 2}))
    assert [[alias["Name"] for alias in page["Aliases"]] for page in pages] == [["a", "b"], ["c"]]
    of_one = lam.list_aliases(FunctionName=function.name, FunctionVersion="1")["Aliases"]
    assert [alias["Name"] for alias in of_one] == ["b", "c"]


def test_a_version_in_use_by_an_alias_cannot_be_deleted(lam, function):
    lam.create_alias(FunctionName=function.name, Name="live", FunctionVersion="1",
                     RoutingConfig={"AdditionalVersionWeights": {"2": 0.1}})
    for version in ("1", "2"):
        with pytest.raises(lam.exceptions.ResourceConflictException) as refused:
            lam.delete_function(FunctionName=function.name, Qualifier=version)
        assert "live" in refused.value.response["Error"]["Message"]
    lam.delete_alias(FunctionName=function.name, Name="live")
    lam.delete_function(FunctionName=function.name, Qualifier="1")
    with pytest.raises(lam.exceptions.ResourceNotFoundException) as gone:
        function.call(Qualifier="live")
    assert gone.value.response["Error"]["Message"].endswith(f":{function.name}:live")


def test_what_an_alias_cannot_be_is_told_in_lambdas_words(lam, loose, function):
    arn = lam.get_function_configuration(FunctionName=function.name)["FunctionArn"]
    lam.create_alias(FunctionName=function.name, Name="live", FunctionVersion="1")

    def message(kind, operation="create_alias", **more):
        request = {"FunctionName": function.name, "Name": "new", "FunctionVersion": "1"} | more
        with pytest.raises(loose.exceptions.ClientError) as refused:
            getattr(loose, operation)(**{name: value for name, value in request.items() if value is not None})
        assert refused.value.response["Error"]["Code"] == kind
        return refused.value.response["Error"]["Message"]

    def weights(**weights):
        return {"AdditionalVersionWeights": {name.strip("v"): value for name, value in weights.items()}}

    invalid, missing = "InvalidParameterValueException", "ResourceNotFoundException"
    assert message("ResourceConflictException", Name="live") == f"Alias already exists: {arn}:live"
    assert message(missing, FunctionVersion="7") == f"Function not found: {arn}:7"
    assert message(missing, RoutingConfig=weights(v7=0.5)) == f"Function not found: {arn}:7"
    assert message(invalid, RoutingConfig=weights(v1=0.5)) == \
        "Invalid function version 1. Function version 1 is already included in routing configuration."
    assert message(invalid, RoutingConfig=weights(v2=0.5, v3=0.5)) == \
        "Number of items in AdditionalVersionWeights cannot be greater than 1"
    assert message(invalid, FunctionVersion="$LATEST", RoutingConfig=weights(v1=0.5)) == \
        "$LATEST is not supported for an alias pointing to more than 1 version"
    assert message("ValidationException", RoutingConfig=weights(v2=2.0)) == (
        "1 validation error detected: Value '{2=2.0}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: "
        "Map value must satisfy constraint: [Member must have value less than or equal to 1.0, Member must have value greater "
        "than or equal to 0.0, Member must not be null]")
    assert "at 'name'" in message("ValidationException", Name="2026")
    assert message(missing, "get_alias", Name="none", FunctionVersion=None) == f"Cannot find alias arn: {arn}:none"
    assert message(missing, "update_alias", Name="none") == f"Alias not found: {arn}:none"


def split(client, name, calls, callers=CALLERS):
    """How many of so many calls of the alias each version ran."""
    counts, lock = {}, threading.Lock()

    def call(count):
        own = {}
        for _ in range(count):
            version = client.invoke(FunctionName=name, Qualifier="live", Payload=b"{}")["ExecutedVersion"]
            own[version] = own.get(version, 0) + 1
        with lock:
            for version, number in own.items():
                counts[version] = counts.get(version, 0) + number

    with ThreadPoolExecutor(callers) as pool:
        for done in [pool.submit(call, calls // callers) for _ in range(callers)]:
            done.result()
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.01, 0.3])
def test_ten_thousand_calls_are_split_within_one_percent(lam, function, weight):
    lam.create_alias(FunctionName=function.name, Name="live", FunctionVersion="1",
                     RoutingConfig={"AdditionalVersionWeights": {"2": weight}})
    counts = split(lam, function.name, CALLS)
    assert sum(counts.values()) == CALLS and counts.keys() <= {"1", "2"}
    share = counts["2"] / CALLS
    assert abs(share - weight) <= 0.01 and counts["2"] > 0, counts
    print(f"\n{weight:.0%} of {CALLS} calls: {counts['2']} by version 2")


def test_asynchronous_calls_of_an_alias_run_its_version(lam, logs, function):
    lam.create_alias(FunctionName=function.name, Name="live", FunctionVersion="1")
    lab.change(lam, "update_function_code", FunctionName=function.name,
               ZipFile=make_zip({"lambda_function.py": "def handler(event, context):\n    print('latest ran')\n"}))
    assert lam.invoke(FunctionName=function.name, Qualifier="live", InvocationType="Event", Payload=b"{}")["StatusCode"] == 202
    started = until(lambda: aws.log_messages(logs, function.name, '"START RequestId"'), "the event to run", 10)
    assert started[0].strip().endswith("Version: 1")


def test_what_failed_is_retried_where_its_alias_went(new_server, runtimes):
    """Rolled back between two attempts, and the version that failed deleted: the retries are not lost with it."""
    server = new_server(config="async_retry_seconds = 2\n").start()
    client, logs = aws.client(server), aws.client(server, "logs")
    python = next(name for name in runtimes if name.startswith("python"))
    function = lab.create(client, source("good"), python)
    good = client.publish_version(FunctionName=function.name)["Version"]
    lab.change(client, "update_function_code", FunctionName=function.name,
               ZipFile=make_zip({"lambda_function.py": "def handler(event, context):\n    raise ValueError('bad')\n"}))
    bad = client.publish_version(FunctionName=function.name)["Version"]
    client.create_alias(FunctionName=function.name, Name="live", FunctionVersion=bad)
    for _ in range(10):
        assert client.invoke(FunctionName=function.name, Qualifier="live", InvocationType="Event", Payload=b"{}")["StatusCode"] == 202
    client.update_alias(FunctionName=function.name, Name="live", FunctionVersion=good)
    client.delete_function(FunctionName=function.name, Qualifier=bad)

    def ran(version):
        lines = aws.log_messages(logs, function.name, '"START RequestId"')
        return {line.split()[2] for line in lines if f"Version: {version}" in line}

    until(lambda: len(ran(good)) == 10, "each event to run in the good version", 30)
    assert ran(bad), "none ran in the bad version before the alias moved"


class Load:
    """Callers that never stop calling an alias, and note what each call came to."""

    def __init__(self, server, name, callers=CALLERS):
        self.server, self.name, self.stop = server, name, threading.Event()
        self.seen, self.failed = [], []
        self.threads = [threading.Thread(target=self.call) for _ in range(callers)]

    def call(self):
        client = aws.client(self.server)
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                response = client.invoke(FunctionName=self.name, Qualifier="live", Payload=b"{}")
                if "FunctionError" in response:
                    self.failed.append(response["Payload"].read())
                    continue
                body = response["Payload"].read()
            except Exception as error:  # whatever it is, it is a call that was dropped
                self.failed.append(repr(error))
                continue
            self.seen.append((began, time.monotonic(), response["ExecutedVersion"], body))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        self.reach(len(self.threads) * 5)
        return self

    def reach(self, more):
        """Waits until so many more calls were answered."""
        wanted = len(self.seen) + more
        until(lambda: len(self.seen) >= wanted or self.failed, f"{more} more calls", 60)

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(30)


def check_moves(load, moves):
    """Every call ran a version that the alias meant at some moment of the call; `moves` are (asked, answered, version)."""
    assert not load.failed, load.failed[:5]
    for began, ended, version, body in load.seen:
        # What it meant before the call, if its successor was not answered by then; and what it came to mean during the call.
        meant = {moved for at, (_, answered, moved) in enumerate(moves)
                 if answered is None or moves[at][0] <= ended and (at + 1 == len(moves) or moves[at + 1][1] >= began)}
        assert version in meant, f"version {version} ran between {began} and {ended}: {moves}"


def test_canary_promotion_and_rollback_under_load_drop_nothing(server, lam, function):
    lam.create_alias(FunctionName=function.name, Name="live", FunctionVersion="1")
    moves = [(0.0, 0.0, "1")]
    with Load(server, function.name) as load:
        lam.update_alias(FunctionName=function.name, Name="live", RoutingConfig={"AdditionalVersionWeights": {"2": 0.2}})
        canary = len(load.seen)
        load.reach(500)
        ran = [version for _, _, version, _ in load.seen[canary:]]
        assert 0.1 < ran.count("2") / len(ran) < 0.3
        # Promoted and the canary taken away in one step; then rolled back in another.
        for version in ("2", "1", "2", "1"):
            asked = time.monotonic()
            lam.update_alias(FunctionName=function.name, Name="live", FunctionVersion=version, RoutingConfig={})
            answered = time.monotonic()
            moves.append((asked, answered, version))
            load.reach(200)
    first = moves[1][1]
    load.seen = [call for call in load.seen if call[0] > first]
    check_moves(load, moves[1:])
    assert len(load.seen) >= 600
    assert {version for _, _, version, _ in load.seen} == {"1", "2"}


def test_deploys_under_load_drop_nothing(server, lam, function):
    """New code, published, and the alias moved to it, again and again; old versions deleted while their last calls run."""
    lam.create_alias(FunctionName=function.name, Name="live", FunctionVersion="1")
    moves = [(0.0, 0.0, "1")]
    with Load(server, function.name) as load:
        for number in range(5):
            version = publish(lam, function.name, f"deploy-{number}")
            asked = time.monotonic()
            lam.update_alias(FunctionName=function.name, Name="live", FunctionVersion=version)
            answered = time.monotonic()
            moves.append((asked, answered, version))
            lam.delete_function(FunctionName=function.name, Qualifier=moves[-2][2])
            load.reach(150)
    check_moves(load, moves)
    assert {version for _, _, version, _ in load.seen} >= {version for _, _, version in moves[1:]}


def test_updates_of_latest_under_load_drop_nothing(server, lam, function):
    """Whoever calls $LATEST gets the old code or the new one, and after the update only the new one."""
    lam.create_alias(FunctionName=function.name, Name="live", FunctionVersion="$LATEST")
    with Load(server, function.name) as load:
        for number in range(4):
            lab.change(lam, "update_function_code", FunctionName=function.name,
                       ZipFile=make_zip({"lambda_function.py": source(f"update-{number}")}))
            updated = time.monotonic()
            load.reach(150)
            after = {body for began, _, _, body in load.seen if began > updated}
            assert all(f"update-{number}".encode() in body for body in after), after
    assert not load.failed, load.failed[:5]


def test_the_life_of_revision_ids(lam, deploy, python):
    """Which change shows on what, as recorded of Lambda: versions and aliases have revisions of their own."""
    function = deploy(source("one"), python)
    name = function.name

    def latest(**qualifier):
        return lam.get_function(FunctionName=name, **qualifier)["Configuration"]["RevisionId"]

    active = latest()
    published = lam.publish_version(FunctionName=name, RevisionId=active)
    assert published["RevisionId"] != active
    assert latest(Qualifier="1") == published["RevisionId"], "that it becomes active shows on nothing"
    after = latest()
    assert after != active, "publishing shows on $LATEST"
    alias = lam.create_alias(FunctionName=name, Name="live", FunctionVersion="1")["RevisionId"]
    assert alias != published["RevisionId"]
    assert (latest(), latest(Qualifier="1")) == (after, published["RevisionId"]), "an alias shows on neither"
    assert lam.update_alias(FunctionName=name, Name="live", Description="x", RevisionId=alias)["RevisionId"] != alias
    assert (latest(), latest(Qualifier="1")) == (after, published["RevisionId"])
    lam.add_permission(FunctionName=name, StatementId="s3", Action="lambda:InvokeFunction", Principal="s3.amazonaws.com", RevisionId=after)
    permitted = latest()
    assert lam.get_policy(FunctionName=name)["RevisionId"] == permitted != after
    lam.remove_permission(FunctionName=name, StatementId="s3", RevisionId=permitted)
    assert latest() != permitted


def test_aliases_survive_a_kill(new_server, runtimes):
    server = new_server().start()
    client = aws.client(server)
    python = next(name for name in runtimes if name.startswith("python"))
    function = lab.create(client, source("one"), python)
    client.publish_version(FunctionName=function.name)
    publish(client, function.name, "two")
    client.create_alias(FunctionName=function.name, Name="live", FunctionVersion="1",
                        RoutingConfig={"AdditionalVersionWeights": {"2": 1.0}})
    client.add_permission(FunctionName=function.name, Qualifier="live", StatementId="s", Action="lambda:InvokeFunction",
                          Principal="111111111111")
    before = client.get_alias(FunctionName=function.name, Name="live"), client.get_policy(FunctionName=function.name, Qualifier="live")
    server.kill()
    server.start()
    client = aws.client(server)
    after = client.get_alias(FunctionName=function.name, Name="live"), client.get_policy(FunctionName=function.name, Qualifier="live")
    for one, other in zip(before, after):
        assert {**one, "ResponseMetadata": 0} == {**other, "ResponseMetadata": 0}
    assert client.invoke(FunctionName=function.name, Qualifier="live", Payload=b"{}")["ExecutedVersion"] == "2"
