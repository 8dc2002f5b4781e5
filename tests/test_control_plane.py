"""What is configured around functions: URLs, code signing, runtimes, SnapStart, file systems, and changes that overlap."""

import json
import re

import pytest
from harness import aws, lab
from harness.aws import ACCOUNT, REGION
from harness.zips import make_zip

CODE = "def handler(event, context):\n    return 1\n"
PROFILE = f"arn:aws:signer:{REGION}:{ACCOUNT}:/signing-profiles/mine/abcdefghij"
POINT = "fsap-0123456789abcdef0"
READ_ONLY = "fsap-0123456789abcdef1"


def point(name):
    return f"arn:aws:elasticfilesystem:{REGION}:{ACCOUNT}:access-point/{name}"


def refused(client, code, status, method, **arguments):
    with pytest.raises(client.exceptions.ClientError) as error:
        getattr(client, method)(**arguments)
    answer = error.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code, status), answer["Error"]
    return answer["Error"]["Message"]


# Function URLs.

def test_a_url_is_made_changed_and_removed(lam, deploy, python):
    name = deploy(CODE, python).name
    refused(lam, "ResourceNotFoundException", 404, "get_function_url_config", FunctionName=name)
    made = lam.create_function_url_config(FunctionName=name, AuthType="AWS_IAM")
    assert re.fullmatch(rf"http://[a-z2-7]{{32}}\.lambda-url\.{REGION}\.localhost:\d+/", made["FunctionUrl"])
    assert (made["AuthType"], made["InvokeMode"]) == ("AWS_IAM", "BUFFERED") and "Cors" not in made
    assert made["FunctionArn"] == f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
    message = refused(lam, "ResourceConflictException", 409, "create_function_url_config", FunctionName=name, AuthType="NONE")
    assert made["FunctionArn"] in message
    cors = {"AllowOrigins": ["https://a.example"], "AllowMethods": ["GET", "*"], "MaxAge": 5}
    changed = lam.update_function_url_config(FunctionName=name, AuthType="NONE", Cors=cors)
    assert (changed["FunctionUrl"], changed["AuthType"], changed["Cors"]) == (made["FunctionUrl"], "NONE", cors)
    shown = lam.get_function_url_config(FunctionName=name)
    assert shown["Cors"] == cors and shown["CreationTime"] <= shown["LastModifiedTime"]
    lam.update_function_url_config(FunctionName=name, Cors={})
    assert "Cors" not in lam.get_function_url_config(FunctionName=name)
    assert [url["FunctionUrl"] for url in lam.list_function_url_configs(FunctionName=name)["FunctionUrlConfigs"]] == [made["FunctionUrl"]]
    assert lam.delete_function_url_config(FunctionName=name)["ResponseMetadata"]["HTTPStatusCode"] == 204
    refused(lam, "ResourceNotFoundException", 404, "delete_function_url_config", FunctionName=name)


def test_what_a_url_cannot_be_is_refused(lam, loose, deploy, python):
    name = deploy(CODE, python).name
    lam.publish_version(FunctionName=name)
    for cors, text in (({"AllowMethods": ["OPTIONS"]}, "Cors"), ({"AllowMethods": ["TRACE"]}, "TRACE"),
                       ({"AllowOrigins": ["https://*.example"]}, "*.example"), ({"AllowOrigins": ["a.example"]}, "a.example")):
        with pytest.raises(loose.exceptions.ClientError) as error:
            loose.create_function_url_config(FunctionName=name, AuthType="NONE", Cors=cors)
        assert text.lower() in error.value.response["Error"]["Message"].lower()
    refused(loose, "ValidationException", 400, "create_function_url_config", FunctionName=name, Qualifier="1", AuthType="NONE")
    refused(lam, "ResourceNotFoundException", 404, "create_function_url_config", FunctionName=name, Qualifier="nobody", AuthType="NONE")
    refused(lam, "ResourceNotFoundException", 404, "create_function_url_config", FunctionName="nobody", AuthType="NONE")


def test_a_url_goes_with_its_function_and_outlives_the_server(new_server, python):
    server = new_server().start()
    client = aws.client(server)
    lab.create(client, CODE, python, name="f")
    made = client.create_function_url_config(FunctionName="f", AuthType="NONE")
    server.restart()
    assert client.get_function_url_config(FunctionName="f")["CreationTime"] == made["CreationTime"]
    client.delete_function(FunctionName="f")
    lab.create(client, CODE, python, name="f")
    refused(client, "ResourceNotFoundException", 404, "get_function_url_config", FunctionName="f")


# Code signing.

def test_unsigned_packages_are_refused_where_that_is_enforced(lam, deploy, python, request):
    enforcing = lam.create_code_signing_config(
        AllowedPublishers={"SigningProfileVersionArns": [PROFILE]},
        CodeSigningPolicies={"UntrustedArtifactOnDeployment": "Enforce"})["CodeSigningConfig"]
    arn = enforcing["CodeSigningConfigArn"]
    assert arn.endswith(enforcing["CodeSigningConfigId"])
    refused(lam, "CodeVerificationFailedException", 400, "create_function", FunctionName="signed", Runtime=python, Role=aws.ROLE,
            Handler="lambda_function.handler", Code={"ZipFile": make_zip({"lambda_function.py": CODE})}, CodeSigningConfigArn=arn)
    refused(lam, "ResourceNotFoundException", 404, "get_function", FunctionName="signed")
    name = deploy(CODE, python).name
    assert not lam.get_function_code_signing_config(FunctionName=name).get("CodeSigningConfigArn")
    lam.put_function_code_signing_config(FunctionName=name, CodeSigningConfigArn=arn)
    other = make_zip({"lambda_function.py": CODE + "# other\n"})
    for dry in (True, False):
        refused(lam, "CodeVerificationFailedException", 400, "update_function_code", FunctionName=name, ZipFile=other, DryRun=dry)
    assert lab.Function(lam, name).call() == 1, "what was there before goes on"
    assert lam.list_functions_by_code_signing_config(CodeSigningConfigArn=arn)["FunctionArns"] == [
        f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"]
    refused(lam, "ResourceConflictException", 409, "delete_code_signing_config", CodeSigningConfigArn=arn)
    changed = lam.update_code_signing_config(CodeSigningConfigArn=arn, CodeSigningPolicies={"UntrustedArtifactOnDeployment": "Warn"})
    assert changed["CodeSigningConfig"]["AllowedPublishers"] == enforcing["AllowedPublishers"]
    lab.change(lam, "update_function_code", FunctionName=name, ZipFile=other)
    lam.delete_function_code_signing_config(FunctionName=name)
    lam.delete_code_signing_config(CodeSigningConfigArn=arn)
    refused(lam, "ResourceNotFoundException", 404, "get_code_signing_config", CodeSigningConfigArn=arn)


def test_a_warning_is_written_where_unsigned_packages_are_let_in(server, lam, deploy, python):
    arn = lam.create_code_signing_config(AllowedPublishers={"SigningProfileVersionArns": [PROFILE]})["CodeSigningConfig"]["CodeSigningConfigArn"]
    name = deploy(CODE, python, CodeSigningConfigArn=arn).name
    assert any("has no signature" in line and name in line and "WARN" in line for line in server.log().splitlines())
    assert lam.get_function_code_signing_config(FunctionName=name)["CodeSigningConfigArn"] == arn


def test_signing_configurations_have_tags_pages_and_outlive_the_server(new_server):
    server = new_server().start()
    client = aws.client(server)
    made = [client.create_code_signing_config(AllowedPublishers={"SigningProfileVersionArns": [PROFILE]}, Tags={"n": str(number)})
            ["CodeSigningConfig"]["CodeSigningConfigArn"] for number in range(3)]
    client.tag_resource(Resource=made[0], Tags={"more": "yes"})
    client.untag_resource(Resource=made[0], TagKeys=["n"])
    server.restart()
    assert client.list_tags(Resource=made[0])["Tags"] == {"more": "yes"}
    pages = client.get_paginator("list_code_signing_configs").paginate(PaginationConfig={"PageSize": 2})
    assert [config["CodeSigningConfigArn"] for page in pages for config in page["CodeSigningConfigs"]] == sorted(made)


# Runtimes.

def test_a_function_can_stay_with_the_runtime_that_it_has(lam, deploy, python):
    name = deploy(CODE, python).name
    here = lam.get_function_configuration(FunctionName=name)["RuntimeVersionConfig"]["RuntimeVersionArn"]
    assert lam.get_runtime_management_config(FunctionName=name)["UpdateRuntimeOn"] == "Auto"
    refused(lam, "InvalidParameterValueException", 400, "put_runtime_management_config", FunctionName=name, UpdateRuntimeOn="Manual")
    message = refused(lam, "InvalidParameterValueException", 400, "put_runtime_management_config", FunctionName=name,
                      UpdateRuntimeOn="Manual", RuntimeVersionArn=here[:-1] + ("0" if here[-1] != "0" else "1"))
    assert here in message
    message = refused(lam, "InvalidParameterValueException", 400, "put_runtime_management_config", FunctionName=name,
                      UpdateRuntimeOn="FunctionUpdate")
    assert "FunctionUpdate is not supported" in message
    set_ = lam.put_runtime_management_config(FunctionName=name, UpdateRuntimeOn="Manual", RuntimeVersionArn=here)
    assert set_["RuntimeVersionArn"] == here and lab.Function(lam, name).call() == 1
    lam.put_runtime_management_config(FunctionName=name, UpdateRuntimeOn="Auto")
    assert "RuntimeVersionArn" not in lam.get_runtime_management_config(FunctionName=name)


def test_a_function_kept_on_a_runtime_that_is_gone_does_not_run(lam, deploy, python, runtimes):
    """What another interpreter of this machine would be to a later server, another runtime of it is to this one."""
    name = deploy(CODE, python).name
    here = lam.get_function_configuration(FunctionName=name)["RuntimeVersionConfig"]["RuntimeVersionArn"]
    lam.put_runtime_management_config(FunctionName=name, UpdateRuntimeOn="Manual", RuntimeVersionArn=here)
    other = next(runtime for runtime in runtimes if runtime.startswith("python") and runtime != python)
    lab.change(lam, "update_function_configuration", FunctionName=name, Runtime=other)
    message = refused(lam, "InvalidRuntimeException", 502, "invoke", FunctionName=name)
    assert here in message
    lam.put_runtime_management_config(FunctionName=name, UpdateRuntimeOn="Auto")
    assert lab.Function(lam, name).call() == 1


# SnapStart.

INITIALIZATION = "import os\nKIND = os.environ['AWS_LAMBDA_INITIALIZATION_TYPE']\ndef handler(event, context):\n    return KIND\n"


def test_published_versions_start_from_a_snapshot(lam, deploy, python):
    function = deploy(INITIALIZATION, python, SnapStart={"ApplyOn": "PublishedVersions"})
    latest = lam.get_function_configuration(FunctionName=function.name)
    assert latest["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "Off"}
    lam.publish_version(FunctionName=function.name)
    lam.get_waiter("published_version_active").wait(FunctionName=function.name, Qualifier="1", WaiterConfig={"Delay": 1})
    version = lam.get_function_configuration(FunctionName=function.name, Qualifier="1")
    assert version["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "On"} and version["State"] == "Active"
    assert function.call() == "on-demand" and function.call(Qualifier="1") == "snap-start"
    lab.change(lam, "update_function_configuration", FunctionName=function.name, SnapStart={"ApplyOn": "None"})
    assert lam.get_function_configuration(FunctionName=function.name)["SnapStart"]["ApplyOn"] == "None"
    assert function.call(Qualifier="1") == "snap-start", "a version stays what it is"


def test_snapstart_is_refused_where_it_cannot_be(lam, deploy, python):
    name = deploy(CODE, python, EphemeralStorage={"Size": 1024}).name
    on = {"ApplyOn": "PublishedVersions"}
    assert "ephemeral" in refused(lam, "InvalidParameterValueException", 400, "update_function_configuration", FunctionName=name, SnapStart=on)
    message = refused(lam, "InvalidParameterValueException", 400, "create_function", FunctionName="snap", Runtime="provided.al2023",
                      Role=aws.ROLE, Handler="bootstrap", Code={"ZipFile": make_zip({"bootstrap": "#!/bin/sh\n"})}, SnapStart=on)
    assert message == "provided.al2023 is not supported for SnapStart enabled functions."


# File systems.

@pytest.fixture
def granted(new_server, tmp_path_factory):
    """A server with two directories that functions may mount, one of them to read only."""
    shared, fixed = tmp_path_factory.mktemp("shared"), tmp_path_factory.mktemp("fixed")
    for directory in (shared, fixed):
        for parent in (directory, *list(directory.parents)[:3]):
            if str(parent) != "/tmp":
                parent.chmod(0o755)
        (directory / "told").write_text("told")
        directory.chmod(0o777)
    server = new_server(config=f'file_systems = ["{POINT}={shared}", "{READ_ONLY}={fixed},ro"]\n').start()
    return aws.client(server), shared, fixed


@pytest.mark.parametrize("kind", ["python", "node"])
def test_a_granted_directory_is_mounted(granted, kind, request):
    client, shared, _ = granted
    runtime = request.getfixturevalue(kind)
    mounted = [{"Arn": point(POINT), "LocalMountPath": "/mnt/shared"}]
    if kind == "python":
        function = lab.create(client, lab.PYTHON_LAB, runtime, FileSystemConfigs=mounted)
        code = "open('/mnt/shared/written', 'w').write('by the function')\nresult = open('/mnt/shared/told').read()"
    else:
        function = lab.create(client, lab.NODE_LAB, runtime, "index.handler", FileSystemConfigs=mounted)
        code = "const fs = require('fs'); fs.writeFileSync('/mnt/shared/written', 'by the function'); return fs.readFileSync('/mnt/shared/told', 'utf8')"
    assert function.run(code) == "told"
    assert (shared / "written").read_text() == "by the function"
    shown = client.get_function(FunctionName=function.name)["Configuration"]
    assert shown["FileSystemConfigs"] == mounted
    assert shown["Martlet"] == {"Start": "ordinary", "Reason": "it has a file system of its own mounted"} if "Martlet" in shown else True


def test_a_read_only_grant_is_only_read(granted, python):
    client, _, fixed = granted
    function = lab.create(client, lab.PYTHON_LAB, python, FileSystemConfigs=[{"Arn": point(READ_ONLY), "LocalMountPath": "/mnt/fixed"}])
    assert function.run("result = open('/mnt/fixed/told').read()") == "told"
    error = function.run_failing("open('/mnt/fixed/new', 'w')")
    assert error["errorType"] == "OSError" and "Read-only" in error["errorMessage"]
    assert not (fixed / "new").exists()


def test_a_directory_is_seen_by_those_who_mount_it_alone(granted, python):
    client, *_ = granted
    bare = lab.create(client, lab.PYTHON_LAB, python)
    assert bare.run("import os\nresult = os.path.exists('/mnt/shared')") is False
    mounted = [{"Arn": point(POINT), "LocalMountPath": "/mnt/shared"}]
    lab.change(client, "update_function_configuration", FunctionName=bare.name, FileSystemConfigs=mounted)
    assert bare.run("result = open('/mnt/shared/told').read()") == "told"
    lab.change(client, "update_function_configuration", FunctionName=bare.name, FileSystemConfigs=[])
    assert bare.run("import os\nresult = os.path.exists('/mnt/shared')") is False


def test_what_was_not_granted_is_refused_by_name(lam, granted, python):
    mounted = [{"Arn": point(POINT), "LocalMountPath": "/mnt/shared"}]
    arguments = {"FunctionName": "granted", "Runtime": python, "Role": aws.ROLE, "Handler": "lambda_function.handler",
                 "Code": {"ZipFile": make_zip({"lambda_function.py": CODE})}}
    message = refused(lam, "InvalidParameterValueException", 400, "create_function", FileSystemConfigs=mounted, **arguments)
    assert point(POINT) in message and "file_systems" in message
    client, *_ = granted
    message = refused(client, "InvalidParameterValueException", 400, "create_function", FileSystemConfigs=mounted,
                      SnapStart={"ApplyOn": "PublishedVersions"}, **arguments)
    assert "FileSystemConfigs" in message


def test_a_grant_that_is_no_grant_stops_the_server_by_name(new_server):
    for wrong in ("shared=/tmp", f"{POINT}=tmp", f"{POINT}"):
        server = new_server(config=f'file_systems = ["{wrong}"]\n')
        with pytest.raises(AssertionError, match="file_systems"):
            server.start()


# Changes that overlap.

def test_an_update_during_an_update_is_a_conflict_and_waiters_end(lam, python):
    """Large packages take a moment, so that the second request comes while the first is under way."""
    name = lab.unique("busy")
    big = {f"part{number}.bin": bytes(range(256)) * 4096 for number in range(40)}
    created = lam.create_function(FunctionName=name, Runtime=python, Role=aws.ROLE, Handler="lambda_function.handler",
                                  Code={"ZipFile": make_zip({"lambda_function.py": CODE} | big)})
    try:
        conflicts = 0
        if created["State"] == "Pending":
            try:
                lam.update_function_configuration(FunctionName=name, Timeout=5)
            except lam.exceptions.ResourceConflictException as error:
                conflicts += 1
                assert "The function is currently in the following state: Pending" in str(error)
        lam.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
        for number in range(10):
            lam.update_function_code(FunctionName=name, ZipFile=make_zip({"lambda_function.py": CODE + f"# {number}\n"} | big))
            try:
                lam.update_function_configuration(FunctionName=name, Timeout=6 + number)
            except lam.exceptions.ResourceConflictException as error:
                conflicts += 1
                assert f"An update is in progress for resource: arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}" in str(error)
            lam.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
            if conflicts > 1:
                break
        assert conflicts, "no request ever met an update under way"
        assert json.loads(lam.invoke(FunctionName=name)["Payload"].read()) == 1
    finally:
        lam.delete_function(FunctionName=name)
