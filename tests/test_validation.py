"""A walk over the public model: every bound of every member is enforced, and every setting applied or refused.

The model is the one that botocore carries, read here anew, so that a fault in the server's own copy would show.
"""

import base64
import copy
import re

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from harness import aws, lab
from harness.aws import ROLE
from harness.zips import make_zip

MODEL = ServiceModel(Loader().load_service_model("lambda", "service-2"))
SERVED = ("CreateFunction", "GetFunction", "GetFunctionConfiguration", "UpdateFunctionCode", "UpdateFunctionConfiguration",
          "DeleteFunction", "ListFunctions", "TagResource", "UntagResource", "ListTags", "PublishVersion",
          "ListVersionsByFunction", "Invoke")
ZIP = make_zip({"lambda_function.py": "def handler(event, context):\n    return 1\n"})
# A value that a pattern refuses, whatever the pattern: none of the model's takes a blank with a bell.
ODD = "\x07 \x07"


def fits(pattern, text):
    """Whether a pattern of the model takes the text; those in a dialect that Python has not (\\p{L}) take no ODD one."""
    try:
        return re.fullmatch(pattern, text) is not None
    except re.error:
        return False


def wrong_values(shape, trail):
    """(trail, bad value, kind) for each bound of `shape` and of what is inside it; trail is a tuple of steps."""
    meta = shape.metadata
    if shape.type_name == "string":
        if shape.enum:
            yield trail, "no-such-choice", "enum"
        if "pattern" in meta and not fits(meta["pattern"], ODD):
            yield trail, ODD.ljust(max(meta.get("min", 0), 3), " "), "pattern"
        if 0 < meta.get("max", 0) <= 10_000:
            yield trail, "a" * (meta["max"] + 1), "too long"
        if meta.get("min", 0) > 0:
            yield trail, "", "too short"
    elif shape.type_name in ("integer", "long"):
        if "min" in meta:
            yield trail, meta["min"] - 1, "too small"
        if "max" in meta:
            yield trail, meta["max"] + 1, "too large"
    elif shape.type_name == "list":
        inner = sample(shape.member)
        if "max" in meta and meta["max"] <= 100 and inner is not None:
            yield trail, [inner] * (meta["max"] + 1), "too many"
        if meta.get("min", 0) > 0:
            yield trail, [], "too few"
        for sub in wrong_values(shape.member, (*trail, 0)):
            yield sub
    elif shape.type_name == "map":
        for _, bad, kind in wrong_values(shape.key, ()):
            yield (*trail, {bad: sample(shape.value)}), None, f"key {kind}"
    elif shape.type_name == "structure":
        for name, member in shape.members.items():
            yield from wrong_values(member, (*trail, name))


def sample(shape):
    """Some value inside the bounds."""
    if shape.type_name == "string":
        return shape.enum[0] if shape.enum else "a" * max(1, shape.metadata.get("min", 1))
    if shape.type_name in ("integer", "long"):
        return shape.metadata.get("min", 1)
    if shape.type_name == "boolean":
        return True
    if shape.type_name == "list":
        return [sample(shape.member)]
    if shape.type_name == "map":
        return {sample(shape.key): sample(shape.value)}
    if shape.type_name == "structure":
        return {name: sample(member) for name, member in shape.members.items()}
    return None


def nested(trail, value):
    """The value at the end of a trail, wrapped in the lists and structures on the way."""
    for step in reversed(trail):
        if isinstance(step, dict):
            value = step
        elif step == 0:
            value = [value]
        else:
            value = {step: value}
    return value


def good_request(operation, function, arn):
    base = {"FunctionName": function, "Resource": arn, "Tags": {"a": "b"}, "TagKeys": ["a"], "Role": ROLE,
            "Handler": "lambda_function.handler", "Code": {"ZipFile": ZIP}, "ZipFile": ZIP, "Payload": b"{}"}
    shape = MODEL.operation_model(operation).input_shape
    wanted = set(shape.required_members)
    if operation == "UpdateFunctionCode":
        wanted.add("ZipFile")
    if operation == "CreateFunction":
        wanted |= {"Handler", "Runtime"}
    return {name: value for name, value in base.items() if name in wanted and name in shape.members}


CASES = [(operation, trail, value, kind)
         for operation in SERVED
         for member, shape in MODEL.operation_model(operation).input_shape.members.items()
         for trail, value, kind in wrong_values(shape, (member,))
         if not (value == "" and shape.serialization.get("location") == "uri")]  # an empty segment is another path


def label(case):
    operation, trail, _, kind = case
    steps = ".".join(step if isinstance(step, str) else "{}" if isinstance(step, dict) else "0" for step in trail)
    return f"{operation}.{steps} {kind}"


@pytest.fixture(scope="module")
def target(_shared_server, python):
    client = aws.client(_shared_server)
    function = lab.create(client, "def handler(e, c):\n    return 1\n", python, name="validated")
    arn = client.get_function_configuration(FunctionName="validated")["FunctionArn"]
    yield function.name, arn
    client.delete_function(FunctionName="validated")


@pytest.mark.parametrize("case", CASES, ids=[label(case) for case in CASES])
def test_a_value_out_of_bounds_is_refused_and_named(loose, target, python, case):
    operation, trail, value, kind = case
    shape = MODEL.operation_model(operation).input_shape.members[trail[0]]
    location = shape.serialization.get("location")
    if location in ("header", "querystring") and isinstance(value, str) and "\x07" in value:
        value = value.replace("\x07", "!")
        if fits(shape.metadata.get("pattern", "$^"), value):
            pytest.skip("no header can carry what this pattern refuses")
    request = good_request(operation, *target)
    if operation == "CreateFunction":
        request |= {"FunctionName": lab.unique("val"), "Runtime": python}
    request |= nested(trail, value)
    method = getattr(loose, next(py for py, name in loose.meta.method_to_api_mapping.items() if name == operation))
    with pytest.raises(loose.exceptions.ClientError) as refused:
        method(**copy.deepcopy(request))
    response = refused.value.response
    code, message = response["Error"]["Code"], response["Error"]["Message"]
    if trail[0] == "Runtime" and code == "InvalidParameterValueException":
        assert "runtime" in message.lower()
        return
    assert code == "ValidationException", f"{code}: {message}"
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert "validation error" in message and "failed to satisfy constraint" in message, message
    last = [step for step in trail if isinstance(step, str)][-1]
    assert last[0].lower() + last[1:] in message or last in message, f"{message!r} does not name {last}"


MISSING = [(operation, member) for operation in SERVED
           for member in MODEL.operation_model(operation).input_shape.required_members
           if MODEL.operation_model(operation).input_shape.members[member].serialization.get("location") != "uri"]


@pytest.mark.parametrize("operation,member", MISSING, ids=[".".join(case) for case in MISSING])
def test_a_missing_required_member_is_refused_and_named(loose, target, python, operation, member):
    request = good_request(operation, *target)
    if operation == "CreateFunction":
        request |= {"FunctionName": lab.unique("val"), "Runtime": python}
    del request[member]
    method = getattr(loose, next(py for py, name in loose.meta.method_to_api_mapping.items() if name == operation))
    with pytest.raises(loose.exceptions.ClientError) as refused:
        method(**request)
    message = refused.value.response["Error"]["Message"]
    assert refused.value.response["Error"]["Code"] == "ValidationException", message
    wire = member[0].lower() + member[1:]
    assert f"Value null at '{wire}' failed to satisfy constraint: Member must not be null" in message


def test_the_usual_text_for_one_and_for_two_errors(raw, python):
    document = {"FunctionName": "x", "Role": ROLE, "Runtime": python, "Handler": "a.b", "MemorySize": 127,
                "Code": {"ZipFile": base64.b64encode(ZIP).decode()}}
    answer = raw.call("POST", "/2015-03-31/functions", document)
    assert (answer.status, answer.error) == (400, "ValidationException")
    assert answer.message == ("1 validation error detected: Value '127' at 'memorySize' failed to satisfy constraint: "
                              "Member must have value greater than or equal to 128")
    answer = raw.call("POST", "/2015-03-31/functions", document | {"Timeout": 0})
    assert answer.message.startswith("2 validation errors detected: ")
    assert "'memorySize'" in answer.message and "'timeout'" in answer.message and "; Value '" in answer.message
    answer = raw.call("POST", "/2015-03-31/functions", document | {"MemorySize": 128, "PackageType": "Tar"})
    assert "Value 'Tar' at 'packageType' failed to satisfy constraint: Member must satisfy enum value set: [" in answer.message
    answer = raw.call("POST", "/2015-03-31/functions", document | {"MemorySize": 128, "Description": "d" * 257})
    assert answer.message.endswith("at 'description' failed to satisfy constraint: "
                                   "Member must have length less than or equal to 256")
    answer = raw.call("POST", "/2015-03-31/functions", document | {"MemorySize": 128, "Role": "me"})
    assert "Value 'me' at 'role' failed to satisfy constraint: Member must satisfy regular expression pattern: arn:" in answer.message


# What each setting is tried with; a dict means: compare what GetFunction shows for these members.
TRIED = {
    "Description": "tried", "Timeout": 17, "MemorySize": 333, "Handler": "lambda_function.handler",
    "Role": ROLE + "-tried", "Environment": {"Variables": {"TRIED": "yes"}}, "EphemeralStorage": {"Size": 777},
    "PackageType": "Zip", "Tags": {"tried": "yes"}, "TracingConfig": {"Mode": "PassThrough"},
    "LoggingConfig": {"LogFormat": "JSON", "ApplicationLogLevel": "ERROR", "SystemLogLevel": "WARN", "LogGroup": "/tried"},
    "SnapStart": {"ApplyOn": "None"},
    "VpcConfig": {"SubnetIds": [], "SecurityGroupIds": []},
}
# What is not built, or switched on rather than left at its default: to be refused by its name.
REFUSED = {
    "VpcConfig": {"SubnetIds": ["subnet-12345678"], "SecurityGroupIds": ["sg-12345678"]},
    "DeadLetterConfig": {"TargetArn": "arn:aws:sqs:us-east-1:000000000000:queue"},
    "KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/00000000-0000-0000-0000-000000000000",
    "TracingConfig": {"Mode": "Active"},
    "FileSystemConfigs": [{"Arn": "arn:aws:elasticfilesystem:us-east-1:000000000000:access-point/fsap-01234567890123456",
                           "LocalMountPath": "/mnt/data"}],
    "ImageConfig": {"Command": ["x"]},
    "SnapStart": {"ApplyOn": "PublishedVersions"},
    "TenancyConfig": {"TenantIsolationMode": "PER_TENANT"},
    "CapacityProviderConfig": {"LambdaManagedInstancesCapacityProviderConfig": {
        "CapacityProviderArn": "arn:aws:lambda:us-east-1:000000000000:capacity-provider:mine"}},
    "DurableConfig": {"ExecutionTimeout": 60},
    "RuntimeConfig": {"RuntimeArn": "arn:aws:lambda:us-east-1:000000000000:runtime:mine"},
    "AcceleratorConfig": {"AcceleratorMemorySize": 16},
    "PublishTo": "LATEST_PUBLISHED",
}
# Not settings: what names the function, brings the code, lets it in or steers the call.
STEERING = {"FunctionName", "Code", "Runtime", "Publish", "RevisionId", "Architectures", "CodeSigningConfigArn", "Layers"}


@pytest.mark.parametrize("operation", ["CreateFunction", "UpdateFunctionConfiguration"])
def test_the_lists_here_cover_the_model(operation):
    members = set(MODEL.operation_model(operation).input_shape.members)
    assert members <= TRIED.keys() | REFUSED.keys() | STEERING, members - TRIED.keys() - REFUSED.keys() - STEERING


def attempt(loose, python, operation, member, value):
    """Sends one setting; gives (shown configuration with tags, None) or (None, the refusal)."""
    name = lab.unique("set")
    base = {"FunctionName": name, "Runtime": python, "Role": ROLE, "Handler": "lambda_function.handler", "Code": {"ZipFile": ZIP}}
    try:
        if operation == "CreateFunction":
            loose.create_function(**base | {member: value})
        else:
            loose.create_function(**base)
            lab.settled(loose, name)
            lab.change(loose, "update_function_configuration", FunctionName=name, **{member: value})
        lab.settled(loose, name)
        whole = loose.get_function(FunctionName=name)
        return whole["Configuration"] | {"Tags": whole.get("Tags", {})}, None
    except loose.exceptions.ClientError as error:
        return None, error.response["Error"]
    finally:
        try:
            loose.delete_function(FunctionName=name)
        except loose.exceptions.ClientError:
            pass


SETTINGS = [(operation, member, which) for operation in ("CreateFunction", "UpdateFunctionConfiguration")
            for which, table in (("usual", TRIED), ("unusual", REFUSED)) for member in table
            if member in MODEL.operation_model(operation).input_shape.members]


@pytest.mark.parametrize("operation,member,which", SETTINGS, ids=["-".join(case) for case in SETTINGS])
def test_every_setting_is_applied_or_refused_by_name(loose, python, operation, member, which):
    value = (TRIED if which == "usual" else REFUSED)[member]
    shown, refusal = attempt(loose, python, operation, member, value)
    if refusal:
        assert member.lower() in refusal["Message"].lower() or member[0].lower() + member[1:] in refusal["Message"], refusal
        assert which == "unusual" or member in ("VpcConfig", "SnapStart"), f"the usual value is refused: {refusal}"
        return
    assert shown.get(member) is not None or value in ({"SubnetIds": [], "SecurityGroupIds": []}, {"ApplyOn": "None"}), \
        f"{member} was accepted and is not shown: stored and ignored?"
    if isinstance(value, dict) and isinstance(shown.get(member), dict):
        assert value.items() <= shown[member].items()
    elif member in shown:
        assert shown[member] == value


@pytest.mark.parametrize("member,value", [("Timeout", 901), ("MemorySize", 10241), ("EphemeralStorage", {"Size": 10241})])
def test_what_only_other_kinds_of_function_may_have_is_refused(loose, python, member, value):
    """The model's bounds are those of managed capacity; an ordinary function has lower ones."""
    shown, refusal = attempt(loose, python, "CreateFunction", member, value)
    assert refusal, f"{member}={value} was accepted: {shown.get(member)}"


def test_an_unknown_member_is_ignored_as_aws_does_or_refused_by_name(raw, python):
    name = lab.unique("set")
    answer = raw.call("POST", "/2015-03-31/functions", {
        "FunctionName": name, "Role": ROLE, "Runtime": python, "Handler": "lambda_function.handler", "Sprockets": 7,
        "Code": {"ZipFile": base64.b64encode(ZIP).decode()}})
    assert answer.status == 201 or "Sprockets" in answer.message
    raw.call("DELETE", aws.function_path(name))


def test_arm64_on_x86_is_refused_by_name_or_the_other_way_round(loose, python):
    import platform
    other = "arm64" if platform.machine() == "x86_64" else "x86_64"
    shown, refusal = attempt(loose, python, "CreateFunction", "Architectures", [other])
    assert refusal and other in refusal["Message"], shown
