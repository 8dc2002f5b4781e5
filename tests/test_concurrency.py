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
    server = new_server(config="account_concurrency = 1\n").start()
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
    function.call(0)
    answers = together(server, function.name, b"3", 40)
    refused = throttles(answers)
    assert refused and len(answers) - len(refused) >= 10, "ten at once are a burst that anybody may have"
    assert {reason(answer) for answer in refused} == {"ConcurrentInvocationLimitExceeded"}
