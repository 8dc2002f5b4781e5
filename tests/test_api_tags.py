"""Tags of a function."""

import pytest
from harness.aws import ACCOUNT, REGION

CODE = "def handler(event, context):\n    return 1\n"


@pytest.fixture
def arn(deploy, python, lam):
    function = deploy(CODE, python, Tags={"a": "1"})
    return lam.get_function_configuration(FunctionName=function.name)["FunctionArn"]


def test_tag_list_untag(lam, arn):
    assert lam.list_tags(Resource=arn)["Tags"] == {"a": "1"}
    answer = lam.tag_resource(Resource=arn, Tags={"b": "zwei", "a": "2"})
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert lam.list_tags(Resource=arn)["Tags"] == {"a": "2", "b": "zwei"}
    lam.untag_resource(Resource=arn, TagKeys=["a", "never-there"])
    assert lam.list_tags(Resource=arn)["Tags"] == {"b": "zwei"}
    assert lam.get_function(FunctionName=arn)["Tags"] == {"b": "zwei"}


def test_tagging_does_not_change_the_revision(lam, arn):
    before = lam.get_function_configuration(FunctionName=arn)["RevisionId"]
    lam.tag_resource(Resource=arn, Tags={"b": "2"})
    assert lam.get_function_configuration(FunctionName=arn)["RevisionId"] == before


def test_more_than_fifty_tags_are_refused_whole(lam, arn):
    with pytest.raises(lam.exceptions.InvalidParameterValueException):
        lam.tag_resource(Resource=arn, Tags={f"k{number}": "v" for number in range(50)})
    assert lam.list_tags(Resource=arn)["Tags"] == {"a": "1"}


@pytest.mark.parametrize("tags", [{"aws:mine": "x"}, {"k" * 129: "x"}, {"k": "v" * 257}])
def test_wrong_tags_are_refused(lam, arn, tags):
    with pytest.raises(lam.exceptions.ClientError) as refused:
        lam.tag_resource(Resource=arn, Tags=tags)
    assert refused.value.response["Error"]["Code"] in ("InvalidParameterValueException", "ValidationException")
    assert lam.list_tags(Resource=arn)["Tags"] == {"a": "1"}


def test_tags_of_nothing(lam):
    nothing = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:no-such"
    for attempt in (lambda: lam.list_tags(Resource=nothing), lambda: lam.tag_resource(Resource=nothing, Tags={"a": "b"}),
                    lambda: lam.untag_resource(Resource=nothing, TagKeys=["a"])):
        with pytest.raises(lam.exceptions.ResourceNotFoundException):
            attempt()
