"""Reserved concurrency, the account's pool, rates, and what a throttled caller is told."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import aws, lab
from harness.waiting import until

SLEEP = "import time\ndef handler(e, c):\n    time.sleep(e)\n    return 'done'\n"


def throttles(answers):
    return [answer for answer in answers if answer.status == 429]


def together(server, name, event, count):
    """So many calls at once, as raw answers."""
    raw = aws.Raw(server)
    with ThreadPoolExecutor(count) as pool:
        send = lambda _: raw.send("POST", aws.function_path(name, "invocations"), event)
        return list(pool.map(send, range(count)))


def reason(answer):
    assert (answer.status, answer.error) == (429, "TooManyRequestsException"), answer
    assert answer.message == "Rate Exceeded." and int(answer.headers["retry-after"]) >= 1
    return answer.json["Reason"]


def test_a_reservation_is_put_shown_and_deleted(lam, deploy, python, raw):
    function = deploy(SLEEP, python)
    name = function.name
    assert "ReservedConcurrentExecutions" not in lam.get_function_concurrency(FunctionName=name)
    assert "Concurrency" not in lam.get_function(FunctionName=name)
    before = lam.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    put = lam.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=7)
    assert put["ReservedConcurrentExecutions"] == 7 and put["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert lam.get_function_concurrency(FunctionName=name)["ReservedConcurrentExecutions"] == 7
    assert lam.get_function(FunctionName=name)["Concurrency"] == {"ReservedConcurrentExecutions": 7}
    assert lam.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == before - 7
    deleted = lam.delete_function_concurrency(FunctionName=name)
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert "ReservedConcurrentExecutions" not in lam.get_function_concurrency(FunctionName=name)
    lam.delete_function_concurrency(FunctionName=name)
    assert lam.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == before


def test_reservations_leave_a_hundred_to_all_others(lam, deploy, python):
    one, other = deploy(SLEEP, python), deploy(SLEEP, python)
    lam.put_function_concurrency(FunctionName=one.name, ReservedConcurrentExecutions=880)
    with pytest.raises(lam.exceptions.InvalidParameterValueException, match=r"below its minimum value of \[100\]"):
        lam.put_function_concurrency(FunctionName=other.name, ReservedConcurrentExecutions=21)
    lam.put_function_concurrency(FunctionName=other.name, ReservedConcurrentExecutions=0)
    lam.put_function_concurrency(FunctionName=one.name, ReservedConcurrentExecutions=900)


def test_who_is_no_function_has_no_reservation(lam, deploy, python):
    for call in (lambda: lam.put_function_concurrency(FunctionName="absent", ReservedConcurrentExecutions=1),
                 lambda: lam.get_function_concurrency(FunctionName="absent"),
                 lambda: lam.delete_function_concurrency(FunctionName="absent")):
        with pytest.raises(lam.exceptions.ResourceNotFoundException):
            call()
    name = deploy(SLEEP, python).name
    lam.publish_version(FunctionName=name)
    with pytest.raises(lam.exceptions.InvalidParameterValueException):
        lam.put_function_concurrency(FunctionName=f"{name}:1", ReservedConcurrentExecutions=1)


def test_a_function_runs_no_more_than_is_reserved_for_it_all_versions_together(server, lam, deploy, python):
    function = deploy(SLEEP, python, Timeout=10)
    function.call(0)
    lam.publish_version(FunctionName=function.name)
    function.call(0, Qualifier="1")
    lam.put_function_concurrency(FunctionName=function.name, ReservedConcurrentExecutions=2)
    raw = aws.Raw(server)
    with ThreadPoolExecutor(6) as pool:
        send = lambda n: raw.send("POST", aws.function_path(function.name, "invocations") + "?Qualifier=1" * (n % 2), b"1.5")
        answers = list(pool.map(send, range(6)))
    assert sorted(answer.status for answer in answers) == [200, 200, 429, 429, 429, 429]
    assert {reason(answer) for answer in throttles(answers)} == {"ReservedFunctionConcurrentInvocationLimitExceeded"}
    lam.delete_function_concurrency(FunctionName=function.name)
    assert [answer.status for answer in together(server, function.name, b"0.2", 6)] == [200] * 6


def test_a_reservation_of_nothing_turns_a_function_off(server, lam, deploy, python):
    function = deploy(SLEEP, python)
    function.call(0)
    lam.put_function_concurrency(FunctionName=function.name, ReservedConcurrentExecutions=0)
    answer = aws.Raw(server).send("POST", aws.function_path(function.name, "invocations"), b"0")
    assert reason(answer) == "ReservedFunctionConcurrentInvocationLimitExceeded"
    with pytest.raises(lam.exceptions.TooManyRequestsException) as refused:
        function.call(0)
    assert refused.value.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert int(refused.value.response["retryAfterSeconds"]) >= 1
    lam.put_function_concurrency(FunctionName=function.name, ReservedConcurrentExecutions=1)
    assert function.call(0) == "done"


def test_what_is_reserved_is_not_taken_by_others(new_server, python):
    server = new_server(config="account_concurrency = 103\n").start()
    client = aws.client(server)
    mine = lab.create(client, SLEEP, python, name="mine", Timeout=10)
    mine.call(0)
    client.put_function_concurrency(FunctionName="mine", ReservedConcurrentExecutions=3)
    assert client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == 100
    server.kill()
    server.start()
    assert client.get_function_concurrency(FunctionName="mine")["ReservedConcurrentExecutions"] == 3
    answers = together(server, "mine", b"1.5", 5)
    assert len(throttles(answers)) == 2, "the reservation holds after a crash"
    assert {reason(answer) for answer in throttles(answers)} == {"ReservedFunctionConcurrentInvocationLimitExceeded"}


def test_a_deleted_function_gives_its_reservation_back(lam, deploy, python):
    before = lam.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    name = deploy(SLEEP, python).name
    lam.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=300)
    lam.delete_function(FunctionName=name)
    assert lam.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == before
    name = deploy(SLEEP, python, name=name).name
    assert "ReservedConcurrentExecutions" not in lam.get_function_concurrency(FunctionName=name)


def test_calls_a_second_are_ten_times_the_concurrency(server, lam, deploy, python):
    function = deploy(SLEEP, python)
    function.call(0)
    lam.put_function_concurrency(FunctionName=function.name, ReservedConcurrentExecutions=1)
    raw = aws.Raw(server)
    path = aws.function_path(function.name, "invocations")

    def refused():
        answer = raw.send("POST", path, b"0")
        return answer if answer.status == 429 else None

    assert reason(until(refused, "a call too many", 20, every=0)) == "ReservedFunctionInvocationRateLimitExceeded"
    until(lambda: raw.send("POST", path, b"0").status == 200, "the next one to be let in", 5)


def test_calls_a_second_of_the_account(new_server, python):
    server = new_server(config="account_concurrency = 1\naccount_calls_per_second = 10\n").start()
    function = lab.create(aws.client(server), SLEEP, python)
    function.call(0)
    raw = aws.Raw(server)

    def refused():
        answer = raw.send("POST", aws.function_path(function.name, "invocations"), b"0")
        return answer if answer.status == 429 else None

    assert reason(until(refused, "a call too many", 20, every=0)) == "FunctionInvocationRateLimitExceeded"


def test_a_function_grows_no_faster_than_it_may(new_server, python):
    server = new_server(config="function_starts_per_second = 1\n").start()
    function = lab.create(aws.client(server), SLEEP, python, Timeout=20, MemorySize=128)
    function.call(1)  # from now on it is known not to be worth waiting for
    answers = together(server, function.name, b"3", 40)
    refused = throttles(answers)
    assert refused and len(answers) - len(refused) >= 8, "ten at once are a burst that anybody may have"
    assert {reason(answer) for answer in refused} == {"ConcurrentInvocationLimitExceeded"}


# ---- provisioned concurrency

TELLS = """
import os, time
AT_INIT = os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]
def handler(e, c):
    time.sleep(e or 0)
    return [AT_INIT, os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"], os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]]
"""


def provisioned(client, name, qualifier):
    return client.get_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier)


def ready(client, name, qualifier):
    """The configuration once all of it is there."""
    def now():
        found = provisioned(client, name, qualifier)
        return found if found["Status"] == "READY" else None
    return until(now, f"{name}:{qualifier} to be provisioned", 30)


def provision(client, name, qualifier, count):
    put = client.put_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier, ProvisionedConcurrentExecutions=count)
    assert put["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert put["RequestedProvisionedConcurrentExecutions"] == count and put["Status"] in ("IN_PROGRESS", "READY")
    return put


@pytest.fixture
def version(lam, deploy, python):
    """A function with one published version."""
    function = deploy(TELLS, python, Timeout=10)
    lam.publish_version(FunctionName=function.name)
    lab.settled(lam, function.name, Qualifier="1")
    return function


def test_environments_are_there_before_it_says_ready(server, lam, version):
    name = version.name
    provision(lam, name, "1", 3)
    found = ready(lam, name, "1")
    assert found["AllocatedProvisionedConcurrentExecutions"] == found["AvailableProvisionedConcurrentExecutions"] == 3
    assert "StatusReason" not in found and found["LastModified"].endswith("+0000")
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: version.call(1, Qualifier="1"), range(3)))
    assert [answer[:2] for answer in answers] == [["provisioned-concurrency"] * 2] * 3, "also while it was initialised"
    assert len({answer[2] for answer in answers}) == 3
    assert version.call()[1] == "on-demand", "$LATEST has none"
    lam.delete_provisioned_concurrency_config(FunctionName=name, Qualifier="1")
    with pytest.raises(lam.exceptions.ProvisionedConcurrencyConfigNotFoundException):
        provisioned(lam, name, "1")
    assert version.call(Qualifier="1")[1] == "on-demand", "those are gone"


def test_more_calls_than_are_provisioned_spill_over(lam, version):
    provision(lam, version.name, "1", 1)
    ready(lam, version.name, "1")
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: version.call(1.5, Qualifier="1"), range(3)))
    assert sorted(answer[1] for answer in answers) == ["on-demand", "on-demand", "provisioned-concurrency"]
    assert version.call(Qualifier="1")[1] == "provisioned-concurrency", "what is provisioned is taken first"


def test_an_environment_that_ends_is_replaced(lam, deploy, python):
    function = deploy("import os\ndef handler(e, c):\n    if e: os._exit(1)\n    return os.environ['AWS_LAMBDA_INITIALIZATION_TYPE']\n", python)
    lam.publish_version(FunctionName=function.name)
    lab.settled(lam, function.name, Qualifier="1")
    provision(lam, function.name, "1", 1)
    ready(lam, function.name, "1")
    for _ in range(3):
        function.fail(True, Qualifier="1")
        ready(lam, function.name, "1")
        assert function.call(False, Qualifier="1") == "provisioned-concurrency"


def test_init_code_that_fails_makes_it_fail(lam, deploy, python):
    function = deploy("raise RuntimeError('no')\ndef handler(e, c):\n    pass\n", python)
    lam.publish_version(FunctionName=function.name)
    lab.settled(lam, function.name, Qualifier="1")
    provision(lam, function.name, "1", 1)
    failed = until(lambda: (found := provisioned(lam, function.name, "1"))["Status"] == "FAILED" and found, "it to fail", 20)
    assert failed["StatusReason"] == "FUNCTION_ERROR_INIT_FAILURE"
    assert failed["AllocatedProvisionedConcurrentExecutions"] == 0


def test_what_does_not_fit_the_memory_says_so(new_server, python):
    server = new_server(config="memory_budget_mb = 512\n").start()
    client = aws.client(server)
    function = lab.create(client, TELLS, python, MemorySize=128)
    client.publish_version(FunctionName=function.name)
    lab.settled(client, function.name, Qualifier="1")
    provision(client, function.name, "1", 9)
    failed = until(lambda: (found := provisioned(client, function.name, "1"))["Status"] == "FAILED" and found, "it to fail", 20)
    assert "memory_budget_mb" in failed["StatusReason"] and 1 <= failed["AllocatedProvisionedConcurrentExecutions"] <= 4
    provision(client, function.name, "1", 1)
    ready(client, function.name, "1")


def test_what_is_provisioned_outlives_the_server(new_server, python):
    server = new_server().start()
    client = aws.client(server)
    function = lab.create(client, TELLS, python)
    client.publish_version(FunctionName=function.name)
    lab.settled(client, function.name, Qualifier="1")
    provision(client, function.name, "1", 2)
    ready(client, function.name, "1")
    server.kill()
    server.start()
    assert ready(client, function.name, "1")["AllocatedProvisionedConcurrentExecutions"] == 2
    assert function.call(Qualifier="1")[1] == "provisioned-concurrency"


def test_configurations_are_listed_by_pages(lam, version):
    name = version.name
    for number in (2, 3):
        lab.change(lam, "update_function_configuration", FunctionName=name, Description=str(number))
        lam.publish_version(FunctionName=name)
    for number in (1, 2, 3):
        provision(lam, name, str(number), 1)
    pages = list(lam.get_paginator("list_provisioned_concurrency_configs").paginate(FunctionName=name, PaginationConfig={"PageSize": 2}))
    configs = [config for page in pages for config in page["ProvisionedConcurrencyConfigs"]]
    assert [config["FunctionArn"].rsplit(":", 1)[1] for config in configs] == ["1", "2", "3"] and len(pages) == 2
    assert {config["RequestedProvisionedConcurrentExecutions"] for config in configs} == {1}
    lam.delete_function(FunctionName=name, Qualifier="2")
    assert len(lam.list_provisioned_concurrency_configs(FunctionName=name)["ProvisionedConcurrencyConfigs"]) == 2


def test_what_cannot_be_provisioned_is_refused(lam, version):
    name, invalid = version.name, lam.exceptions.InvalidParameterValueException
    put = lambda qualifier, count: lam.put_provisioned_concurrency_config(
        FunctionName=name, Qualifier=qualifier, ProvisionedConcurrentExecutions=count)
    with pytest.raises(invalid, match="unpublished function versions"):
        put("$LATEST", 1)
    for absent in ("7", "nothing"):
        with pytest.raises(lam.exceptions.ResourceNotFoundException):
            put(absent, 1)
        with pytest.raises(lam.exceptions.ResourceNotFoundException):
            provisioned(lam, name, absent)
    with pytest.raises(invalid, match=r"unreserved concurrency \[900\]"):
        put("1", 901)
    lam.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=2)
    with pytest.raises(invalid, match="reservedConcurrentExecution"):
        put("1", 3)
    put("1", 2)
    with pytest.raises(invalid, match="provisioned"):
        lam.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    with pytest.raises(lam.exceptions.ProvisionedConcurrencyConfigNotFoundException):
        lab.change(lam, "update_function_configuration", FunctionName=name, Description="two")
        lam.publish_version(FunctionName=name)
        provisioned(lam, name, "2")


# ---- tenants with environments of their own

REMEMBERS = """
import os
SEEN = []
def handler(e, c):
    SEEN.append(c.tenant_id)
    print("for", c.tenant_id)
    return [c.tenant_id, SEEN, c.log_stream_name]
"""
PER_TENANT = {"TenancyConfig": {"TenantIsolationMode": "PER_TENANT"}}


def test_each_tenant_has_environments_of_its_own(lam, deploy, python):
    function = deploy(REMEMBERS, python, **PER_TENANT)
    assert lam.get_function_configuration(FunctionName=function.name)["TenancyConfig"] == {"TenantIsolationMode": "PER_TENANT"}
    streams = {}
    for turn in range(1, 4):
        for tenant in ("blue", "green", "a:b/c=d+e@f g.h_i-j"):
            named, seen, stream = function.call(TenantId=tenant)
            assert (named, seen) == (tenant, [tenant] * turn)
            streams.setdefault(tenant, set()).add(stream)
    assert [len(used) for used in streams.values()] == [1, 1, 1] and len(set.union(*streams.values())) == 3


def test_a_tenant_is_named_where_they_are_told_apart_and_nowhere_else(lam, deploy, python):
    theirs, plain = deploy(REMEMBERS, python, **PER_TENANT), deploy(REMEMBERS, python)
    invalid = lam.exceptions.InvalidParameterValueException
    for more in ({}, {"InvocationType": "Event"}, {"InvocationType": "DryRun"}):
        with pytest.raises(invalid, match="is enabled with tenancy configuration. Add a valid tenant ID"):
            lam.invoke(FunctionName=theirs.name, **more)
        with pytest.raises(invalid, match="is not enabled with tenancy configuration. Remove the tenant ID"):
            lam.invoke(FunctionName=plain.name, TenantId="blue", **more)
    assert "TenancyConfig" not in lam.get_function_configuration(FunctionName=plain.name)


def test_an_event_is_run_for_its_tenant(lam, deploy, python, logs):
    function = deploy(REMEMBERS, python, **PER_TENANT)
    for tenant in ("blue", "green"):
        assert function.invoke(TenantId=tenant, InvocationType="Event")["StatusCode"] == 202
    until(lambda: {m.strip() for m in aws.log_messages(logs, function.name, "for")} == {"for blue", "for green"}, "both to run")


def test_nothing_is_provisioned_for_tenants_that_nobody_knows(lam, deploy, python):
    function = deploy(REMEMBERS, python, **PER_TENANT)
    lam.publish_version(FunctionName=function.name)
    with pytest.raises(lam.exceptions.InvalidParameterValueException, match="tenancy"):
        provision(lam, function.name, "1", 1)


def test_a_reservation_holds_for_all_tenants_together(server, lam, deploy, python):
    function = deploy(SLEEP, python, Timeout=10, **PER_TENANT)
    lam.put_function_concurrency(FunctionName=function.name, ReservedConcurrentExecutions=2)
    raw = aws.Raw(server)
    with ThreadPoolExecutor(5) as pool:
        send = lambda n: raw.send("POST", aws.function_path(function.name, "invocations"), b"2", {"x-amz-tenant-id": f"tenant-{n}"})
        answers = list(pool.map(send, range(5)))
    assert sorted(answer.status for answer in answers) == [200, 200, 429, 429, 429]


def test_the_tenant_reaches_other_runtimes(lam, deploy, node):
    function = deploy("exports.handler = async (event, context) => context.tenantId ?? null;", node, handler="index.handler", **PER_TENANT)
    assert function.call(TenantId="blue") == "blue"
