"""Resource policies: who may call what. Other accounts are those that development mode makes of keys of twelve digits."""

import json

import pytest
from botocore.exceptions import ClientError
from harness import aws, lab

OTHER, THIRD = "111111111111", "222222222222"
SOURCE = "def handler(event, context):\n    return 'ran'\n"


@pytest.fixture(scope="module")
def _dev(request, _shared_server):
    from harness.server import Server
    server = Server(flags=["--dev"]).start()
    yield server
    server.close()


@pytest.fixture
def dev(_dev, request):
    """A server in development mode; its log is checked as that of others."""
    yield _dev
    if lines := _dev.unexpected():
        pytest.fail("the server's log has errors:\n" + "\n".join(lines[:20]))


@pytest.fixture
def owner(dev):
    return aws.client(dev)


@pytest.fixture
def function(owner, runtimes):
    """A function with a version 1 and an alias live."""
    python = next(name for name in runtimes if name.startswith("python"))
    function = lab.create(owner, SOURCE, python)
    owner.publish_version(FunctionName=function.name)
    owner.create_alias(FunctionName=function.name, Name="live", FunctionVersion="1")
    function.arn = owner.get_function_configuration(FunctionName=function.name)["FunctionArn"]
    yield function
    owner.delete_function(FunctionName=function.name)


def of(server, account):
    return aws.client(server, key=account, secret="whatever")


def code(call, **arguments):
    """None where it works, else the error's code."""
    try:
        call(**arguments)
        return None
    except ClientError as error:
        return error.response["Error"]["Code"]


DENIED = "AccessDeniedException"


def test_another_account_is_let_in_by_a_permission_and_shut_out_by_its_removal(dev, owner, function):
    other, third = of(dev, OTHER), of(dev, THIRD)
    with pytest.raises(ClientError) as refused:
        other.invoke(FunctionName=function.arn)
    error = refused.value.response
    assert (error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]) == (DENIED, 403)
    assert error["Error"]["Message"] == (
        f"User: arn:aws:iam::{OTHER}:user/dev is not authorized to perform: lambda:InvokeFunction on resource: {function.arn} "
        "because no resource-based policy allows the lambda:InvokeFunction action")
    added = owner.add_permission(FunctionName=function.name, StatementId="other", Action="lambda:InvokeFunction", Principal=OTHER)
    assert added["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert json.loads(added["Statement"]) == {
        "Sid": "other", "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{OTHER}:root"},
        "Action": "lambda:InvokeFunction", "Resource": function.arn}
    assert json.loads(other.invoke(FunctionName=function.arn)["Payload"].read()) == "ran"
    assert other.invoke(FunctionName=function.arn, InvocationType="Event", Payload=b"{}")["StatusCode"] == 202
    assert code(third.invoke, FunctionName=function.arn) == DENIED
    # Not by its own name for it, which would be a function of its own account.
    assert code(other.invoke, FunctionName=function.name) == "ResourceNotFoundException"
    owner.remove_permission(FunctionName=function.name, StatementId="other")
    assert code(other.invoke, FunctionName=function.arn) == DENIED


def test_a_policy_is_of_its_qualifier_alone(dev, owner, function):
    other = of(dev, OTHER)
    owner.add_permission(FunctionName=function.name, Qualifier="live", StatementId="s", Action="lambda:InvokeFunction",
                         Principal=f"arn:aws:iam::{OTHER}:user/dev")
    assert code(other.invoke, FunctionName=f"{function.arn}:live") is None
    assert code(other.invoke, FunctionName=function.arn, Qualifier="live") is None
    for elsewhere in (function.arn, f"{function.arn}:1", f"{function.arn}:$LATEST"):
        assert code(other.invoke, FunctionName=elsewhere) == DENIED
    owner.add_permission(FunctionName=function.name, StatementId="s", Action="lambda:InvokeFunction", Principal=OTHER)
    assert code(other.invoke, FunctionName=function.arn) is None
    assert code(other.invoke, FunctionName=f"{function.arn}:1") == DENIED
    assert json.loads(owner.get_policy(FunctionName=function.name, Qualifier="live")["Policy"])["Statement"][0]["Resource"] == \
        f"{function.arn}:live"


def test_other_actions_are_permissions_of_their_own(dev, owner, function):
    other = of(dev, OTHER)
    owner.add_permission(FunctionName=function.name, StatementId="see", Action="lambda:GetFunctionConfiguration", Principal=OTHER)
    assert other.get_function_configuration(FunctionName=function.arn)["FunctionArn"] == function.arn
    for forbidden in (other.get_function, other.invoke, other.get_policy, other.publish_version, other.delete_function):
        assert code(forbidden, FunctionName=function.arn) == DENIED
    owner.add_permission(FunctionName=function.name, StatementId="all", Action="lambda:*", Principal=OTHER)
    assert code(other.get_function, FunctionName=function.arn) is None
    assert code(other.list_aliases, FunctionName=function.arn) is None


def test_statement_ids_and_revisions(owner, function):
    def add(**more):
        return owner.add_permission(**{"FunctionName": function.name, "StatementId": "s3", "Action": "lambda:InvokeFunction",
                                       "Principal": "s3.amazonaws.com", "SourceArn": "arn:aws:s3:::photos",
                                       "SourceAccount": OTHER} | more)

    first = owner.get_function_configuration(FunctionName=function.name)["RevisionId"]
    add(RevisionId=first)
    policy = owner.get_policy(FunctionName=function.name)
    assert json.loads(policy["Policy"]) == {"Version": "2012-10-17", "Id": "default", "Statement": [{
        "Sid": "s3", "Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "lambda:InvokeFunction",
        "Resource": function.arn, "Condition": {"ArnLike": {"AWS:SourceArn": "arn:aws:s3:::photos"},
                                                "StringEquals": {"AWS:SourceAccount": OTHER}}}]}
    assert policy["RevisionId"] == owner.get_function_configuration(FunctionName=function.name)["RevisionId"] != first
    with pytest.raises(owner.exceptions.ResourceConflictException) as refused:
        add()
    assert refused.value.response["Error"]["Message"].startswith("The statement id (s3) provided already exists.")
    with pytest.raises(owner.exceptions.PreconditionFailedException):
        add(StatementId="other", RevisionId=first)
    with pytest.raises(owner.exceptions.PreconditionFailedException):
        owner.remove_permission(FunctionName=function.name, StatementId="s3", RevisionId=first)
    with pytest.raises(owner.exceptions.ResourceNotFoundException) as missing:
        owner.remove_permission(FunctionName=function.name, StatementId="other")
    assert missing.value.response["Error"]["Message"] == "Statement other is not found in resource policy."
    owner.remove_permission(FunctionName=function.name, StatementId="s3", RevisionId=policy["RevisionId"])
    with pytest.raises(owner.exceptions.ResourceNotFoundException) as gone:
        owner.get_policy(FunctionName=function.name)
    assert gone.value.response["Error"]["Message"] == "The resource you requested does not exist."


@pytest.mark.parametrize("more,kind,text", [
    ({"Principal": "nobody"}, "InvalidParameterValueException", "The provided principal was invalid."),
    ({"PrincipalOrgID": "o-1234567890"}, "InvalidParameterValueException", "PrincipalOrgID"),
    ({"FunctionUrlAuthType": "NONE"}, "InvalidParameterValueException", "FunctionUrlAuthType"),
    ({"Qualifier": "$LATEST"}, "InvalidParameterValueException", "We currently do not support adding policies for $LATEST."),
    ({"Qualifier": "none"}, "ResourceNotFoundException", "none"),
    ({"StatementId": "not an id"}, "ValidationException", "statementId"),
])
def test_what_a_permission_cannot_be(dev, function, more, kind, text):
    loose = aws.client(dev, validate=False)
    with pytest.raises(ClientError) as refused:
        loose.add_permission(**{"FunctionName": function.name, "StatementId": "s", "Action": "lambda:InvokeFunction",
                                "Principal": OTHER} | more)
    assert refused.value.response["Error"]["Code"] == kind
    assert text in refused.value.response["Error"]["Message"]
    with pytest.raises(ClientError):
        loose.get_policy(FunctionName=function.name)


def test_a_policy_of_more_than_20_kb_is_refused(owner, function):
    statement = {"Effect": "Allow", "Principal": {"AWS": OTHER}, "Action": "lambda:InvokeFunction", "Resource": function.arn}
    count = 20_480 // len(json.dumps({"Sid": "s0000", **statement}, separators=(",", ":")))
    near = {"Version": "2012-10-17", "Statement": [{"Sid": f"s{number:04}", **statement} for number in range(count - 2)]}
    owner.put_resource_policy(ResourceArn=function.arn, Policy=json.dumps(near, separators=(",", ":")))
    with pytest.raises(owner.exceptions.PolicyLengthExceededException) as refused:
        for number in range(5):
            owner.add_permission(FunctionName=function.name, StatementId=f"more{number}", Action="lambda:InvokeFunction", Principal=OTHER)
    assert "is bigger than the limit (20480)." in refused.value.response["Error"]["Message"]


def test_a_whole_document(dev, owner, function):
    other, third = of(dev, OTHER), of(dev, THIRD)
    owner.add_permission(FunctionName=function.name, StatementId="old", Action="lambda:InvokeFunction", Principal=THIRD)
    document = {"Version": "2012-10-17", "Statement": [
        {"Sid": "in", "Effect": "Allow", "Principal": {"AWS": [OTHER, THIRD]}, "Action": "lambda:Invoke*", "Resource": function.arn},
        {"Sid": "out", "Effect": "Deny", "Principal": "*", "Action": "lambda:InvokeFunction", "Resource": function.arn,
         "Condition": {"StringEquals": {"aws:PrincipalAccount": THIRD}}}]}
    put = owner.put_resource_policy(ResourceArn=function.arn, Policy=json.dumps(document))
    got = owner.get_resource_policy(ResourceArn=function.arn)
    assert json.loads(got["Policy"])["Statement"] == document["Statement"] and got["RevisionId"] == put["RevisionId"]
    assert owner.get_policy(FunctionName=function.name)["Policy"] == got["Policy"], "they are one policy"
    assert code(other.invoke, FunctionName=function.arn) is None
    assert code(third.invoke, FunctionName=function.arn) == DENIED
    with pytest.raises(owner.exceptions.PreconditionFailedException):
        owner.put_resource_policy(ResourceArn=function.arn, Policy=json.dumps(document), RevisionId="0" * 8 + "-0000-0000-0000-" + "0" * 12)
    owner.remove_permission(FunctionName=function.name, StatementId="out")
    assert code(third.invoke, FunctionName=function.arn) is None
    owner.delete_resource_policy(ResourceArn=function.arn, RevisionId=owner.get_resource_policy(ResourceArn=function.arn)["RevisionId"])
    assert code(third.invoke, FunctionName=function.arn) == DENIED
    for gone in (owner.get_resource_policy, owner.delete_resource_policy):
        assert code(gone, ResourceArn=function.arn) == "ResourceNotFoundException"


def test_a_denial_binds_the_owner_too(owner, function):
    deny = {"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Principal": "*", "Action": "lambda:InvokeFunction",
                                                   "Resource": f"{function.arn}:live"}}
    owner.put_resource_policy(ResourceArn=f"{function.arn}:live", Policy=json.dumps(deny))
    with pytest.raises(ClientError) as refused:
        owner.invoke(FunctionName=function.name, Qualifier="live")
    assert "with an explicit deny in a resource-based policy" in refused.value.response["Error"]["Message"]
    assert code(owner.invoke, FunctionName=function.name, Qualifier="1") is None
    owner.delete_resource_policy(ResourceArn=f"{function.arn}:live")
    assert code(owner.invoke, FunctionName=function.name, Qualifier="live") is None


@pytest.mark.parametrize("statement,text", [
    ({"Action": "s3:GetObject"}, "Action"),
    ({"Resource": "arn:aws:lambda:us-east-1:000000000000:function:other"}, "Resource"),
    ({"Principal": {"Federated": "cognito-identity.amazonaws.com"}}, "Federated"),
    ({"NotPrincipal": "*"}, "NotPrincipal"),
    ({"Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-1234567890"}}}, "aws:PrincipalOrgID"),
    ({"Condition": {"StringEquals": {"aws:PrincipalTag/team": "x"}}}, "aws:PrincipalTag/team"),
    ({"Condition": {"ForAllValues:StringEquals": {"aws:SourceArn": "x"}}}, "ForAllValues:StringEquals"),
    ({"Condition": {"StringLike": {"aws:SourceArn": "${aws:PrincipalArn}"}}}, "policy variable"),
])
def test_what_a_document_says_is_applied_or_refused_by_name(owner, function, statement, text):
    whole = {"Effect": "Allow", "Principal": "*", "Action": "lambda:InvokeFunction", "Resource": function.arn} | statement
    with pytest.raises(owner.exceptions.InvalidParameterValueException) as refused:
        owner.put_resource_policy(ResourceArn=function.arn, Policy=json.dumps({"Version": "2012-10-17", "Statement": [whole]}))
    assert text in refused.value.response["Error"]["Message"]


def test_what_is_enforced_is_enforced_with_real_signatures_too(lam, deploy, runtimes):
    """Without development mode there is one account; a denial is what it can meet."""
    function = deploy(SOURCE, next(name for name in runtimes if name.startswith("python")))
    arn = lam.get_function_configuration(FunctionName=function.name)["FunctionArn"]
    deny = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": {"AWS": aws.ACCOUNT}, "Action": "lambda:InvokeFunction",
                                                    "Resource": "*", "Condition": {"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}}]}
    lam.put_resource_policy(ResourceArn=arn, Policy=json.dumps(deny))
    assert code(lam.invoke, FunctionName=function.name) == DENIED
    elsewhere = json.dumps(deny).replace("127.0.0.0/8", "10.0.0.0/8")
    lam.put_resource_policy(ResourceArn=arn, Policy=elsewhere)
    assert code(lam.invoke, FunctionName=function.name) is None


def by_url(server, shown, account=None):
    """Status and body of a GET of a function's URL, by its path form; signed where an account is given."""
    key = shown["FunctionUrl"].split("//")[1].split(".")[0]
    raw = aws.Raw(server, key=account or "unused", secret="whatever")
    path = f"/_martlet/url/{key}/"
    answer = raw.send("GET", path) if account else raw.exchange("GET", path)
    return answer.status, answer.body.decode()


def test_a_url_for_everybody_takes_both_permissions(dev, owner, function):
    shown = owner.create_function_url_config(FunctionName=function.name, Qualifier="live", AuthType="NONE")
    forbidden = by_url(dev, shown)
    assert forbidden[0] == 403 and "Forbidden" in forbidden[1], forbidden
    owner.add_permission(FunctionName=function.name, Qualifier="live", StatementId="url", Principal="*",
                         Action="lambda:InvokeFunctionUrl", FunctionUrlAuthType="NONE")
    assert by_url(dev, shown)[0] == 403, "one of two"
    owner.add_permission(FunctionName=function.name, Qualifier="live", StatementId="call", Principal="*",
                         Action="lambda:InvokeFunction", InvokedViaFunctionUrl=True)
    assert by_url(dev, shown) == (200, "ran")
    assert code(of(dev, OTHER).invoke, FunctionName=f"{function.arn}:live") == DENIED, "by the URL alone"
    owner.remove_permission(FunctionName=function.name, Qualifier="live", StatementId="url")
    assert by_url(dev, shown)[0] == 403
    # The other kind of permission does not help.
    owner.add_permission(FunctionName=function.name, Qualifier="live", StatementId="url", Principal="*",
                         Action="lambda:InvokeFunctionUrl", FunctionUrlAuthType="AWS_IAM")
    assert by_url(dev, shown)[0] == 403


def test_a_signed_url_is_for_the_account_and_whom_it_lets_in(dev, owner, function):
    shown = owner.create_function_url_config(FunctionName=function.name, AuthType="AWS_IAM")
    assert by_url(dev, shown)[0] == 403, "unsigned"
    assert by_url(dev, shown, aws.ACCOUNT) == (200, "ran")
    assert by_url(dev, shown, OTHER)[0] == 403
    for statement, action, more in (("url", "lambda:InvokeFunctionUrl", {"FunctionUrlAuthType": "AWS_IAM"}),
                                    ("call", "lambda:InvokeFunction", {"InvokedViaFunctionUrl": True})):
        assert by_url(dev, shown, OTHER)[0] == 403
        owner.add_permission(FunctionName=function.name, StatementId=statement, Principal=OTHER, Action=action, **more)
    assert by_url(dev, shown, OTHER) == (200, "ran")
    assert by_url(dev, shown, THIRD)[0] == 403
    deny = {"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Principal": "*", "Action": "lambda:InvokeFunctionUrl",
                                                   "Resource": function.arn}}
    owner.put_resource_policy(ResourceArn=function.arn, Policy=json.dumps(deny))
    assert by_url(dev, shown, aws.ACCOUNT)[0] == 403, "a denial binds the owner too"
    assert code(owner.invoke, FunctionName=function.name) is None, "by the URL alone"
