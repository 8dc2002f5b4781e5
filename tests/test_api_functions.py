"""Create, get, update, delete and list functions, as boto3 sees them."""

import base64
import hashlib
import re
import urllib.error
import urllib.request

import pytest
from harness import aws, lab
from harness.aws import ACCOUNT, REGION, ROLE
from harness.zips import make_zip

CODE = "def handler(event, context):\n    return event\n"
ZIP = make_zip({"lambda_function.py": CODE})
OTHER_ZIP = make_zip({"lambda_function.py": "def handler(event, context):\n    return 'other'\n"})


def sha(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


@pytest.fixture
def made(lam, python):
    name = lab.unique("api")
    answer = lam.create_function(FunctionName=name, Runtime=python, Role=ROLE, Handler="lambda_function.handler",
                                 Code={"ZipFile": ZIP})
    lab.settled(lam, name)
    yield answer
    try:
        lam.delete_function(FunctionName=name)
    except lam.exceptions.ResourceNotFoundException:
        pass


def test_create_answers_with_the_whole_configuration(made, python):
    name = made["FunctionName"]
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert made["FunctionArn"] == f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
    assert made["Runtime"] == python
    assert made["Role"] == ROLE
    assert made["Handler"] == "lambda_function.handler"
    assert made["CodeSize"] == len(ZIP)
    assert made["CodeSha256"] == sha(ZIP)
    assert made["Version"] == "$LATEST"
    assert made["Timeout"] == 3 and made["MemorySize"] == 128
    assert made["Description"] == ""
    assert made["EphemeralStorage"] == {"Size": 512}
    assert made["PackageType"] == "Zip"
    assert made["Architectures"] in (["x86_64"], ["arm64"])
    assert made["TracingConfig"] == {"Mode": "PassThrough"}
    assert made["LoggingConfig"] == {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{name}"}
    assert made["State"] in ("Pending", "Active")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000", made["LastModified"])
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", made["RevisionId"])


def test_waiters_of_boto3_come_to_an_end(lam, made):
    name = made["FunctionName"]
    quick = {"Delay": 1, "MaxAttempts": 10}
    lam.get_waiter("function_exists").wait(FunctionName=name, WaiterConfig=quick)
    lam.get_waiter("function_active").wait(FunctionName=name, WaiterConfig=quick)
    lam.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig=quick)
    lam.update_function_configuration(FunctionName=name, Timeout=4)
    lam.get_waiter("function_updated").wait(FunctionName=name, WaiterConfig=quick)
    lam.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig=quick)
    state = lam.get_function_configuration(FunctionName=name)
    assert state["State"] == "Active" and state["LastUpdateStatus"] == "Successful"


def test_get_function_links_to_the_code(lam, made):
    answer = lam.get_function(FunctionName=made["FunctionName"])
    assert answer["Code"]["RepositoryType"] == "S3"
    with urllib.request.urlopen(answer["Code"]["Location"], timeout=10) as download:
        assert download.read() == ZIP
    assert answer["Configuration"]["CodeSha256"] == sha(ZIP)


def test_the_code_link_does_not_open_another_package(lam, made):
    location = lam.get_function(FunctionName=made["FunctionName"])["Code"]["Location"]
    path, _, query = location.partition("?")
    assert query, "the link carries no signature"
    for forged in (path, path + "x?" + query, location[:-1] + ("0" if location[-1] != "0" else "1")):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(forged, timeout=10)
        assert refused.value.code in (400, 403)


def test_get_configuration_is_what_get_function_shows(lam, made):
    configuration = lam.get_function_configuration(FunctionName=made["FunctionName"])
    whole = lam.get_function(FunctionName=made["FunctionName"])["Configuration"]
    configuration.pop("ResponseMetadata")
    assert configuration == whole


@pytest.mark.parametrize("form", ["{name}", "{name}:$LATEST", "{account}:function:{name}", "{account}:function:{name}:$LATEST",
                                  "function:{name}",
                                  "arn:aws:lambda:{region}:{account}:function:{name}",
                                  "arn:aws:lambda:{region}:{account}:function:{name}:$LATEST"])
def test_every_form_of_the_name_finds_the_function(lam, made, form):
    name = form.format(name=made["FunctionName"], account=ACCOUNT, region=REGION)
    assert lam.get_function_configuration(FunctionName=name)["FunctionName"] == made["FunctionName"]


def test_the_arn_has_the_qualifier_that_was_asked_for(lam, made):
    name, arn = made["FunctionName"], made["FunctionArn"]
    assert lam.get_function_configuration(FunctionName=name)["FunctionArn"] == arn
    assert lam.get_function_configuration(FunctionName=name, Qualifier="$LATEST")["FunctionArn"] == arn + ":$LATEST"
    assert lam.get_function(FunctionName=f"{name}:$LATEST")["Configuration"]["FunctionArn"] == arn + ":$LATEST"


def test_lists_leave_out_what_is_in_motion(lam, made):
    """As in Lambda: state and update status are in the answers about one function, not in lists."""
    listed = next(f for p in lam.get_paginator("list_functions").paginate() for f in p["Functions"] if f["FunctionName"] == made["FunctionName"])
    assert not {"State", "StateReason", "LastUpdateStatus"} & listed.keys()
    version = lam.list_versions_by_function(FunctionName=made["FunctionName"])["Versions"][0]
    assert not {"State", "StateReason", "LastUpdateStatus"} & version.keys()


def test_an_environment_is_shown_only_where_one_was_set(lam, made):
    assert "Environment" not in made
    assert made["SnapStart"] == {"ApplyOn": "None", "OptimizationStatus": "Off"}
    updated = lab.change(lam, "update_function_configuration", FunctionName=made["FunctionName"], Environment={"Variables": {}})
    assert updated["Environment"] == {"Variables": {}}


def test_a_qualifier_in_both_places_must_agree(lam, made, raw):
    name = made["FunctionName"]
    both = lam.get_function_configuration(FunctionName=f"{name}:$LATEST", Qualifier="$LATEST")
    assert both["Version"] == "$LATEST"
    answer = raw.call("GET", aws.function_path(f"{name}:1", "configuration"), query={"Qualifier": "$LATEST"})
    assert (answer.status, answer.error) == (400, "InvalidParameterValueException")


def test_update_code(lam, made):
    name = made["FunctionName"]
    updated = lab.change(lam, "update_function_code", FunctionName=name, ZipFile=OTHER_ZIP)
    assert updated["CodeSha256"] == sha(OTHER_ZIP) and updated["CodeSize"] == len(OTHER_ZIP)
    assert updated["RevisionId"] != made["RevisionId"]
    assert updated["LastUpdateStatus"] in ("Successful", "InProgress")
    assert lam.invoke(FunctionName=name)["Payload"].read() == b'"other"'


def test_update_code_dry_run_changes_nothing(lam, made):
    name = made["FunctionName"]
    answer = lab.change(lam, "update_function_code", FunctionName=name, ZipFile=OTHER_ZIP, DryRun=True)
    assert answer["CodeSha256"] == sha(OTHER_ZIP)
    assert lam.get_function_configuration(FunctionName=name)["CodeSha256"] == sha(ZIP)


def test_update_configuration_applies_every_setting(lam, made):
    name = made["FunctionName"]
    lab.change(lam, "update_function_configuration", 
        FunctionName=name, Description="d", Timeout=30, MemorySize=512, Handler="lambda_function.other",
        Environment={"Variables": {"ONE": "1"}}, EphemeralStorage={"Size": 1024}, Role=ROLE + "-2",
        LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": "WARN", "SystemLogLevel": "DEBUG", "LogGroup": "/mine"})
    now = lam.get_function_configuration(FunctionName=name)
    assert (now["Description"], now["Timeout"], now["MemorySize"], now["Handler"]) == ("d", 30, 512, "lambda_function.other")
    assert now["Environment"]["Variables"] == {"ONE": "1"}
    assert now["EphemeralStorage"] == {"Size": 1024} and now["Role"] == ROLE + "-2"
    assert now["LoggingConfig"] == {"LogFormat": "JSON", "ApplicationLogLevel": "WARN", "SystemLogLevel": "DEBUG",
                                    "LogGroup": "/mine"}
    assert now["CodeSha256"] == made["CodeSha256"]


def test_an_update_leaves_alone_what_it_does_not_name(lam, made):
    name = made["FunctionName"]
    lab.change(lam, "update_function_configuration", FunctionName=name, Environment={"Variables": {"KEEP": "me"}}, Timeout=9)
    lab.change(lam, "update_function_configuration", FunctionName=name, Description="only this")
    now = lam.get_function_configuration(FunctionName=name)
    assert now["Environment"]["Variables"] == {"KEEP": "me"} and now["Timeout"] == 9
    lab.change(lam, "update_function_configuration", FunctionName=name, Environment={"Variables": {}})
    assert lam.get_function_configuration(FunctionName=name).get("Environment", {}).get("Variables", {}) == {}


def test_delete_ends_it(lam, made):
    name = made["FunctionName"]
    assert lam.delete_function(FunctionName=name)["ResponseMetadata"]["HTTPStatusCode"] in (200, 204)
    for operation in (lam.get_function, lam.delete_function, lam.get_function_configuration, lam.list_versions_by_function):
        with pytest.raises(lam.exceptions.ResourceNotFoundException):
            operation(FunctionName=name)
    with pytest.raises(lam.exceptions.ResourceNotFoundException):
        lam.invoke(FunctionName=name)


def test_changes_while_one_is_in_motion_are_refused_as_in_lambda(lam, python):
    """The state machine that boto3's waiters were made for: 409 until the last change has arrived."""
    name = lab.unique("api")
    created = lam.create_function(FunctionName=name, Runtime=python, Role=ROLE, Handler="lambda_function.handler", Code={"ZipFile": ZIP})
    try:
        if created["State"] == "Pending":
            try:
                lam.update_function_configuration(FunctionName=name, Timeout=4)
            except lam.exceptions.ResourceConflictException as refused:
                assert "Pending" in refused.response["Error"]["Message"]
        lab.settled(lam, name)
        assert lab.change(lam, "update_function_configuration", FunctionName=name, Timeout=5)["Timeout"] == 5
        assert lab.settled(lam, name)["Timeout"] == 5
    finally:
        lam.delete_function(FunctionName=name)


def test_create_with_everything_at_once(lam, python):
    name = lab.unique("api")
    lam.create_function(
        FunctionName=name, Runtime=python, Role=ROLE, Handler="lambda_function.handler", Code={"ZipFile": ZIP},
        Description="all of it", Timeout=900, MemorySize=10240, Environment={"Variables": {"A_1": "ü", "BB": ""}},
        EphemeralStorage={"Size": 10240}, Tags={"team": "platform"}, Publish=True, PackageType="Zip",
        TracingConfig={"Mode": "PassThrough"}, LoggingConfig={"LogFormat": "JSON"})
    try:
        lab.settled(lam, name)
        whole = lam.get_function(FunctionName=name)
        now = whole["Configuration"]
        assert (now["Timeout"], now["MemorySize"], now["EphemeralStorage"]["Size"]) == (900, 10240, 10240)
        assert now["Environment"]["Variables"] == {"A_1": "ü", "BB": ""}
        assert whole["Tags"] == {"team": "platform"}
        assert now["LoggingConfig"]["ApplicationLogLevel"] == "INFO" and now["LoggingConfig"]["SystemLogLevel"] == "INFO"
        assert lam.get_function_configuration(FunctionName=name, Qualifier="1")["Version"] == "1"
    finally:
        lam.delete_function(FunctionName=name)


def test_list_functions_pages_through_all(lam, python):
    names = {lab.create(lam, CODE, python, name=f"page-{number:02}").name for number in range(7)}
    try:
        seen, pages, marker = [], 0, None
        while True:
            page = lam.list_functions(MaxItems=3, **({"Marker": marker} if marker else {}))
            pages += 1
            assert len(page["Functions"]) <= 3
            seen += [function["FunctionName"] for function in page["Functions"]]
            marker = page.get("NextMarker")
            if not marker:
                break
        assert pages >= 3
        assert len(seen) == len(set(seen)) and names <= set(seen)
        paginated = [f["FunctionName"] for p in lam.get_paginator("list_functions").paginate() for f in p["Functions"]]
        assert sorted(paginated) == sorted(seen)
    finally:
        for name in names:
            lam.delete_function(FunctionName=name)


def test_list_functions_gives_at_most_fifty_a_page(lam, python):
    names = [f"fifty-{number:02}" for number in range(52)]
    for name in names:
        lab.create(lam, CODE, python, name=name)
    try:
        page = lam.list_functions(MaxItems=10000)
        assert len(page["Functions"]) == 50 and page["NextMarker"]
    finally:
        for name in names:
            lam.delete_function(FunctionName=name)


def test_list_functions_with_all_versions(lam, made):
    name = made["FunctionName"]
    lam.publish_version(FunctionName=name)
    listed = [f for p in lam.get_paginator("list_functions").paginate(FunctionVersion="ALL") for f in p["Functions"]]
    assert {f["Version"] for f in listed if f["FunctionName"] == name} == {"$LATEST", "1"}
    arns = {f["FunctionArn"] for f in listed if f["FunctionName"] == name}
    assert arns == {made["FunctionArn"] + ":$LATEST", made["FunctionArn"] + ":1"}


def test_a_marker_that_nobody_gave_out_is_refused(raw):
    answer = raw.call("GET", "/2015-03-31/functions/", query={"Marker": "%%%nonsense"})
    assert (answer.status, answer.error) == (400, "InvalidParameterValueException")


def test_account_settings_count(lam, made):
    settings = lam.get_account_settings()
    limit, usage = settings["AccountLimit"], settings["AccountUsage"]
    assert limit["CodeSizeUnzipped"] == 262144000 and limit["CodeSizeZipped"] == 52428800
    assert limit["ConcurrentExecutions"] == 1000 and limit["UnreservedConcurrentExecutions"] == 1000
    assert limit["TotalCodeSize"] == 80530636800
    assert usage["FunctionCount"] >= 1 and usage["TotalCodeSize"] >= len(ZIP)


def test_two_accounts_do_not_see_each_other(new_server, python):
    server = new_server(flags=["--dev"]).start()
    one = aws.client(server, key="111111111111", secret="x")
    two = aws.client(server, key="222222222222", secret="x")
    lab.create(one, CODE, python, name="mine")
    assert one.get_function(FunctionName="mine")["Configuration"]["FunctionArn"].split(":")[4] == "111111111111"
    assert two.list_functions()["Functions"] == []
    with pytest.raises(two.exceptions.ResourceNotFoundException):
        two.invoke(FunctionName="mine")
