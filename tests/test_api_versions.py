"""Published versions: numbered, immutable, and the RevisionId that guards every change."""

import pytest
from harness import aws, lab
from harness.zips import make_zip

ANSWER = "import os\ndef handler(event, context):\n    return [{value!r}, os.environ.get('VALUE'), context.function_version]\n"


def source(value):
    return ANSWER.format(value=value)


@pytest.fixture
def function(deploy, python):
    return deploy(source("one"), python, Environment={"Variables": {"VALUE": "1"}})


def test_versions_are_numbered_from_one_and_keep_their_code_and_settings(lam, function):
    name = function.name
    first = lam.publish_version(FunctionName=name, Description="the first")
    assert first["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert first["Version"] == "1" and first["FunctionArn"].endswith(f":{name}:1") and first["Description"] == "the first"
    lab.change(lam, "update_function_code", FunctionName=name, ZipFile=make_zip({"lambda_function.py": source("two")}))
    lab.change(lam, "update_function_configuration", FunctionName=name, Environment={"Variables": {"VALUE": "2"}})
    assert lam.publish_version(FunctionName=name)["Version"] == "2"
    assert function.call(Qualifier="1") == ["one", "1", "1"]
    assert function.call(Qualifier="2") == ["two", "2", "2"]
    assert function.call() == ["two", "2", "$LATEST"]
    lab.change(lam, "update_function_configuration", FunctionName=name, Timeout=20, Environment={"Variables": {"VALUE": "3"}})
    assert function.call(Qualifier="2") == ["two", "2", "2"]
    assert lam.get_function_configuration(FunctionName=name, Qualifier="2")["Timeout"] == 3


def test_a_version_has_the_description_of_its_publication_or_else_of_latest(lam, function):
    name = function.name
    lab.change(lam, "update_function_configuration", FunctionName=name, Description="of latest")
    assert lam.publish_version(FunctionName=name)["Description"] == "of latest"
    lab.change(lam, "update_function_configuration", FunctionName=name, Timeout=9)
    assert lam.publish_version(FunctionName=name, Description="its own")["Description"] == "its own"
    assert lam.get_function_configuration(FunctionName=name)["Description"] == "of latest"


def test_publishing_twice_without_a_change_gives_the_same_version(lam, function):
    first = lam.publish_version(FunctionName=function.name)
    again = lam.publish_version(FunctionName=function.name)
    assert (first["Version"], again["Version"]) == ("1", "1")


def test_list_versions_begins_with_latest_and_pages(lam, function):
    for number in range(3):
        lab.change(lam, "update_function_configuration", FunctionName=function.name, Description=str(number))
        lam.publish_version(FunctionName=function.name)
    pages = list(lam.get_paginator("list_versions_by_function").paginate(
        FunctionName=function.name, PaginationConfig={"PageSize": 2}))
    versions = [version for page in pages for version in page["Versions"]]
    assert [version["Version"] for version in versions] == ["$LATEST", "1", "2", "3"]
    assert len(pages) == 2
    assert versions[0]["FunctionArn"].endswith(":$LATEST")


def test_a_published_version_cannot_be_changed(lam, function, raw):
    lam.publish_version(FunctionName=function.name)
    for method, what, document in (("PUT", "configuration", {"Timeout": 5}), ("PUT", "code", {"ZipFile": "UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA=="})):
        answer = raw.call(method, aws.function_path(f"{function.name}:1", what), document)
        assert answer.status in (400, 409), answer
        assert answer.error in ("InvalidParameterValueException", "ResourceConflictException")


def test_deleting_one_version_leaves_the_others(lam, function):
    for text in ("a", "b"):
        lab.change(lam, "update_function_configuration", FunctionName=function.name, Description=text)
        lam.publish_version(FunctionName=function.name)
    lam.delete_function(FunctionName=function.name, Qualifier="1")
    with pytest.raises(lam.exceptions.ResourceNotFoundException):
        function.call(Qualifier="1")
    assert function.call(Qualifier="2")[2] == "2"
    lab.change(lam, "update_function_configuration", FunctionName=function.name, Description="c")
    assert lam.publish_version(FunctionName=function.name)["Version"] == "3", "a number is never used again"


def test_latest_alone_cannot_be_deleted(function, raw):
    answer = raw.call("DELETE", aws.function_path(function.name), query={"Qualifier": "$LATEST"})
    assert (answer.status, answer.error) == (400, "InvalidParameterValueException")


def test_publish_checks_the_code_hash(lam, function):
    right = lam.get_function_configuration(FunctionName=function.name)["CodeSha256"]
    with pytest.raises(lam.exceptions.InvalidParameterValueException):
        lam.publish_version(FunctionName=function.name, CodeSha256="A" * 43 + "=")
    assert lam.publish_version(FunctionName=function.name, CodeSha256=right)["Version"] == "1"


def test_publish_with_create_and_with_update_code(lam, python, deploy):
    created = lam.create_function(FunctionName="published", Runtime=python, Handler="lambda_function.handler", Role=aws.ROLE,
                                  Code={"ZipFile": make_zip({"lambda_function.py": source("one")})}, Publish=True)
    assert created["Version"] == "1"
    lam.delete_function(FunctionName="published")
    function = deploy(source("one"), python, Publish=True)
    lab.settled(lam, function.name, Qualifier="1")
    assert function.call(Qualifier="1")[2] == "1"
    updated = lab.change(lam, "update_function_code", FunctionName=function.name, Publish=True,
                                       ZipFile=make_zip({"lambda_function.py": source("two")}))
    assert updated["Version"] == "2"
    lab.settled(lam, function.name, Qualifier="2")
    assert function.call(Qualifier="2")[0] == "two"


def test_a_stale_revision_id_is_refused_and_changes_nothing(lam, function):
    name = function.name
    old = lam.get_function_configuration(FunctionName=name)["RevisionId"]
    lab.change(lam, "update_function_configuration", FunctionName=name, Timeout=5, RevisionId=old)
    new = lab.settled(lam, name)["RevisionId"]
    assert new != old
    zipped = make_zip({"lambda_function.py": source("never")})
    for attempt in (lambda: lam.update_function_configuration(FunctionName=name, Timeout=6, RevisionId=old),
                    lambda: lam.update_function_code(FunctionName=name, ZipFile=zipped, RevisionId=old),
                    lambda: lam.publish_version(FunctionName=name, RevisionId=old)):
        with pytest.raises(lam.exceptions.PreconditionFailedException) as refused:
            attempt()
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
        assert "Revision Id" in refused.value.response["Error"]["Message"]
    now = lam.get_function_configuration(FunctionName=name)
    assert now["Timeout"] == 5 and now["RevisionId"] == new
    assert len(lam.list_versions_by_function(FunctionName=name)["Versions"]) == 1


def test_a_version_that_does_not_exist(lam, function):
    with pytest.raises(lam.exceptions.ResourceNotFoundException) as refused:
        function.call(Qualifier="7")
    arn = lam.get_function_configuration(FunctionName=function.name)["FunctionArn"]
    assert refused.value.response["Error"]["Message"] == f"Function not found: {arn}:7"


def test_an_alias_that_does_not_exist(lam, function):
    with pytest.raises(lam.exceptions.ResourceNotFoundException):
        function.call(Qualifier="prod")
