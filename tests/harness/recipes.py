"""How each operation of Lambda is called, for the walk in `walk.py`.

An operation without a recipe may not be built: whoever builds it adds one. Where a member has no proof here, the walk
proves it by a general rule: its value shows, or a name of nothing is refused.
"""

import base64
import hashlib
import json
import platform

from . import lab
from .walk import ARN, ECHO, NOTHING, Recipe, With, found
from .zips import make_zip

HERE = "x86_64" if platform.machine() == "x86_64" else "arm64"
OTHER_ZIP = make_zip({"lambda_function.py": ECHO + "# other\n"})
CONTEXT = base64.b64encode(json.dumps({"custom": {"told": "yes"}}).encode()).decode()
STATEMENT = {"StatementId": "one", "Action": "lambda:InvokeFunction", "Principal": "111122223333"}
PROFILE = "arn:aws:signer:us-east-1:000000000000:/signing-profiles/mine/abcdefghij"
LOGGING = {"LogFormat": "JSON", "ApplicationLogLevel": "ERROR", "SystemLogLevel": "WARN", "LogGroup": "/told"}


def digest(content):
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def function(**more):
    """A request about a function made for it."""
    return lambda world: {"FunctionName": world.function(), **more}


def version(count=1, **more):
    """The same about a version."""
    def arrange(world):
        name = world.function()
        return {"FunctionName": name, "Qualifier": world.versions(name, count), **more}
    return arrange


def made(operation, before, keep, **more):
    """A request about what another operation made; `keep` are the members that both have."""
    def arrange(world):
        request = before(world)
        world.call(operation, request)
        return {name: request[name] for name in keep if name in request} | more
    return arrange


def several(operation, before, keep, changes):
    """A request for a list of what another operation made several times."""
    def arrange(world):
        request = before(world)
        for change in changes:
            world.call(operation, request | change)
        return {name: request[name] for name in keep}
    return arrange


def alias(**more):
    def arrange(world):
        name = world.function()
        world.versions(name, 2)
        return {"FunctionName": name, "Name": "live", "FunctionVersion": "1", **more}
    return arrange


def gone(operation, arrange, reader, keep):
    """A proof that a removal removes what it names."""
    def proof(world):
        request = arrange(world)
        asked = {name: request[name] for name in keep}
        world.call(reader, asked)
        world.call(operation, request)
        world.refuses(reader, asked, 404, "ResourceNotFoundException")
    return proof


# Functions.

def zip_is_the_code(world):
    request = world.new()
    assert world.call("CreateFunction", request)["CodeSha256"] == digest(request["Code"]["ZipFile"])


def new_zip_is_the_code(world):
    request = {"FunctionName": world.function(), "ZipFile": OTHER_ZIP}
    assert world.call("UpdateFunctionCode", request)["CodeSha256"] == digest(OTHER_ZIP)


def create_publishes(world):
    assert world.call("CreateFunction", world.new(Publish=True))["Version"] == "1"


def update_publishes(world):
    name = world.function()
    assert world.call("UpdateFunctionCode", {"FunctionName": name, "ZipFile": OTHER_ZIP, "Publish": True})["Version"] == "1"


def dry_run_changes_nothing(world):
    name = world.function()
    before = world.call("GetFunction", {"FunctionName": name})["Configuration"]
    world.call("UpdateFunctionCode", {"FunctionName": name, "ZipFile": OTHER_ZIP, "DryRun": True})
    assert world.call("GetFunction", {"FunctionName": name})["Configuration"]["CodeSha256"] == before["CodeSha256"]


def other_architecture(operation, arrange):
    """This machine has one architecture: the other is refused by its name."""
    def proof(world):
        other = "arm64" if HERE == "x86_64" else "x86_64"
        request = arrange(world) | {"Architectures": [other]}
        assert other in world.refusal(operation, request)["Error"]["Message"]
    return proof


def all_versions_are_listed(world):
    name = world.function()
    world.versions(name)
    listed = []
    for page in world.client.get_paginator("list_functions").paginate(FunctionVersion="ALL"):
        listed += [shown["Version"] for shown in page["Functions"] if shown["FunctionName"] == name]
    assert sorted(listed) == ["$LATEST", "1"]


def whose_functions(world):
    """There is one region: its functions are those of each master region that is none other."""
    name = world.function(Publish=True)
    pages = world.client.get_paginator("list_functions")
    here = [shown for page in pages.paginate(FunctionVersion="ALL", MasterRegion="us-east-1") for shown in page["Functions"]]
    assert any(shown["FunctionName"] == name for shown in here)
    there = world.call("ListFunctions", {"FunctionVersion": "ALL", "MasterRegion": "eu-west-1"})
    assert there["Functions"] == []


def expects_code(world):
    world.refuses("PublishVersion", {"FunctionName": world.function(), "CodeSha256": digest(b"other")}, 400,
                  "InvalidParameterValueException")


def tags_go(world):
    arn = f"{ARN}:function:{world.function(Tags={'a': '1', 'b': '2'})}"
    world.call("UntagResource", {"Resource": arn, "TagKeys": ["a"]})
    assert world.call("ListTags", {"Resource": arn})["Tags"] == {"b": "2"}


def tagged(**more):
    return lambda world: {"Resource": f"{ARN}:function:{world.function(Tags={'a': '1'})}", **more}


def an_image(*without):
    """What is made of an image has no runtime and no handler."""
    def value(world, request):
        return With(world.image(), {"PackageType": "Image"} if "Runtime" in without else {}, without)
    return value


def an_image_config(world, request):
    return With({"EntryPoint": ["/bin/told"], "Command": ["told"], "WorkingDirectory": "/told"},
                {"PackageType": "Image", "Code": {"ImageUri": world.image()}}, ("Runtime", "Handler", "Code"))


def deleted_version(world):
    request = version()(world)
    world.call("DeleteFunction", request)
    world.refuses("GetFunction", request, 404, "ResourceNotFoundException")
    world.call("GetFunction", {"FunctionName": request["FunctionName"]})


# Invocations.

def an_event(world):
    assert world.call("Invoke", {"FunctionName": world.function(), "InvocationType": "Event"})["Status"] == 202
    assert world.call("Invoke", {"FunctionName": world.function(), "InvocationType": "DryRun"})["Status"] == 204


def a_tail(operation):
    def proof(world):
        answer = world.call(operation, {"FunctionName": world.function(), "LogType": "Tail"})
        assert "END RequestId" in base64.b64decode(found(answer, "LogResult")).decode()
    return proof


def payload(operation, answer):
    return b"".join(part["PayloadChunk"]["Payload"] for part in answer["EventStream"] if "PayloadChunk" in part) \
        if "EventStream" in answer else answer["Payload"]


def carries(operation, member, value, shown):
    def proof(world):
        answer = world.call(operation, {"FunctionName": world.function(), member: value})
        assert shown in payload(operation, answer), answer
    return proof


def a_dry_run(world):
    answer = world.call("InvokeWithResponseStream", {"FunctionName": world.function(), "InvocationType": "DryRun"})
    assert payload("", answer) == b""


def a_tenant(operation):
    def proof(world):
        name = world.function(TenancyConfig={"TenantIsolationMode": "PER_TENANT"})
        world.refuses(operation, {"FunctionName": name}, 400)
        world.call(operation, {"FunctionName": name, "TenantId": "blue"})
    return proof


def tenant(world, request):
    """Only a function that keeps tenants apart takes one."""
    return With("blue", {"FunctionName": world.function(TenancyConfig={"TenantIsolationMode": "PER_TENANT"}), "Qualifier": "$LATEST"})


# Layers, policies, code signing.

def layer(**more):
    return lambda world: {"LayerName": lab.unique("layer"), "Content": {"ZipFile": OTHER_ZIP}, **more}


def layer_version(world):
    request = layer()(world)
    world.call("PublishLayerVersion", request)
    return {"LayerName": request["LayerName"], "VersionNumber": 1}


def layer_arn(world):
    return f"{ARN}:layer:{layer_version(world)['LayerName']}:1"


def layer_is_the_zip(world):
    assert world.call("PublishLayerVersion", layer()(world))["Content"]["CodeSha256"] == digest(OTHER_ZIP)


def layers_by(operation, member, value, other, published):
    """A filter of a list: what was published for `value` is in its list, and in no other's."""
    def proof(world):
        request = layer(**{published: [value]})(world)
        world.call("PublishLayerVersion", request)
        named = {"LayerName": request["LayerName"]} if operation == "ListLayerVersions" else {}
        lists = "LayerVersions" if named else "Layers"
        mine = f":layer:{request['LayerName']}"
        assert mine in str(world.call(operation, named | {member: value})[lists])
        assert mine not in str(world.call(operation, named | {member: other})[lists])
    return proof


def layer_permission(**more):
    return lambda world: layer_version(world) | {"StatementId": "one", "Action": "lambda:GetLayerVersion", "Principal": "111122223333"} | more


def permitted(world, request):
    return json.dumps({"Version": "2012-10-17", "Statement": [{
        "Sid": "told", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111122223333:root"},
        "Action": "lambda:InvokeFunction", "Resource": request["ResourceArn"]}]})


def whole_policy(world):
    request = {"ResourceArn": f"{ARN}:function:{world.function()}"}
    return request | {"Policy": permitted(world, request)}


def policy_of_nothing(world):
    request = {"ResourceArn": NOTHING["ResourceArn"]}
    world.refuses("PutResourcePolicy", request | {"Policy": permitted(world, request)}, 404, "ResourceNotFoundException")


def in_the_policy(member, value, text):
    """A member of AddPermission stands in the statement."""
    def proof(world):
        request = {"FunctionName": world.function(), **STATEMENT, member: value}
        if member == "FunctionUrlAuthType":
            request["Action"] = "lambda:InvokeFunctionUrl"
        if member in ("SourceAccount", "SourceArn"):
            request["Principal"] = "s3.amazonaws.com"
        statement = json.dumps(json.loads(world.call("AddPermission", request)["Statement"]))
        assert text in statement, statement
    return proof


def event_source_token(world):
    request = {"FunctionName": world.function(), **STATEMENT, "Principal": "alexa-appkit.amazon.com", "EventSourceToken": "told"}
    assert "lambda:EventSourceToken" in world.call("AddPermission", request)["Statement"]


def policy_is_kept(world):
    request = whole_policy(world)
    world.call("PutResourcePolicy", request)
    assert json.loads(request["Policy"])["Statement"][0]["Sid"] in found(
        world.call("GetResourcePolicy", {"ResourceArn": request["ResourceArn"]}), "Policy")


def signing(**more):
    return lambda world: {"AllowedPublishers": {"SigningProfileVersionArns": [PROFILE]}, **more}


def signing_config(**more):
    return lambda world: {"CodeSigningConfigArn": found(world.call("CreateCodeSigningConfig", signing()(world)),
                                                        "CodeSigningConfigArn"), **more}


def signed_function(*keep):
    def arrange(world):
        request = {"FunctionName": world.function()} | signing_config()(world)
        world.call("PutFunctionCodeSigningConfig", request)
        return {name: request[name] for name in keep}
    return arrange


def signed_functions(world):
    config = signing_config()(world)
    for _ in range(2):
        world.call("PutFunctionCodeSigningConfig", {"FunctionName": world.function()} | config)
    return config


def signing_configs(world):
    for _ in range(2):
        signing_config()(world)
    return {}


def created_signed(world):
    config = signing_config()(world)
    name = world.function(**config)
    assert world.call("GetFunctionCodeSigningConfig", {"FunctionName": name})["CodeSigningConfigArn"] == config["CodeSigningConfigArn"]


def unknown_signing_config(world):
    world.refuses("PutFunctionCodeSigningConfig", {"FunctionName": world.function(), "CodeSigningConfigArn": NOTHING["CodeSigningConfigArn"]},
                  404, "CodeSigningConfigNotFoundException")
    unsigned(world)


def unsigned(world):
    """The function has no configuration any more."""
    request = signed_function("FunctionName")(world)
    world.call("DeleteFunctionCodeSigningConfig", request)
    assert "CodeSigningConfigArn" not in {key: value for key, value in world.call(
        "GetFunctionCodeSigningConfig", request).items() if value}


# Concurrency, events, URLs.

def unreserved(world):
    request = {"FunctionName": world.function()}
    world.call("PutFunctionConcurrency", request | {"ReservedConcurrentExecutions": 1})
    assert world.call("GetFunctionConcurrency", request)["ReservedConcurrentExecutions"] == 1
    world.call("DeleteFunctionConcurrency", request)
    assert "ReservedConcurrentExecutions" not in world.call("GetFunctionConcurrency", request)


def policy_revision(world, request):
    """Of the policy that is there, or was just made for it."""
    name = request.get("FunctionName") or request["ResourceArn"].split(":function:")[1]
    asked = {"FunctionName": name, **({"Qualifier": request["Qualifier"]} if "Qualifier" in request else {})}
    try:
        return world.call("GetPolicy", asked)["RevisionId"]
    except world.client.exceptions.ResourceNotFoundException:
        world.call("AddPermission", asked | STATEMENT | {"StatementId": "before"})
        return world.call("GetPolicy", asked)["RevisionId"]


def latest_revision(world, request):
    return world.call("GetFunctionConfiguration", {"FunctionName": request["FunctionName"]})["RevisionId"]


def alias_revision(world, request):
    return world.call("GetAlias", {"FunctionName": request["FunctionName"], "Name": request["Name"]})["RevisionId"]


def layer_policy_revision(world, request):
    asked = {name: request[name] for name in ("LayerName", "VersionNumber")}
    try:
        return world.call("GetLayerVersionPolicy", asked)["RevisionId"]
    except world.client.exceptions.ResourceNotFoundException:
        world.call("AddLayerVersionPermission", asked | {
            "StatementId": "before", "Action": "lambda:GetLayerVersion", "Principal": "111122223333"})
        return world.call("GetLayerVersionPolicy", asked)["RevisionId"]


PERMITTED = made("AddPermission", version(**STATEMENT), ("FunctionName", "Qualifier", "StatementId"))


def layers(world):
    request = layer()(world)
    for _ in range(2):
        world.call("PublishLayerVersion", request)
    return {"LayerName": request["LayerName"]}


def layers_of_one_name(world):
    versions = world.call("ListLayerVersions", layers(world))["LayerVersions"]
    assert [shown["Version"] for shown in versions] == [2, 1]
    layers(world)


def in_the_layer_policy(member, value):
    def proof(world):
        request = layer_permission(**{member: value})(world)
        if member == "OrganizationId":
            request["Principal"] = "*"
        assert value in world.call("AddLayerVersionPermission", request)["Statement"]
    return proof


def signing_tags(world):
    """Tags of a configuration are listed as those of a function are."""
    arn = found(world.call("CreateCodeSigningConfig", signing(Tags={"told": "yes"})(world)), "CodeSigningConfigArn")
    assert world.call("ListTags", {"Resource": arn})["Tags"] == {"told": "yes"}


def provisioned_is_told(world):
    answer = world.call("PutProvisionedConcurrencyConfig", PROVISIONED(world) | {"ProvisionedConcurrentExecutions": 2})
    assert answer["RequestedProvisionedConcurrentExecutions"] == 2


def an_alias(world, request):
    world.versions(request["FunctionName"])
    world.call("CreateAlias", {"FunctionName": request["FunctionName"], "Name": "live", "FunctionVersion": "1"})
    return "live"


def a_url_of_an_alias(world, request):
    name = an_alias(world, request)
    world.call("CreateFunctionUrlConfig", {"FunctionName": request["FunctionName"], "Qualifier": name, "AuthType": "NONE"})
    return name


def a_version(world, request):
    return world.versions(request["FunctionName"])


def manual(world, request):
    """Manual means the runtime that is named, which has to be one of this machine."""
    shown = world.call("GetFunctionConfiguration", {"FunctionName": request["FunctionName"]})
    return With(shown["RuntimeVersionConfig"]["RuntimeVersionArn"], {"UpdateRuntimeOn": "Manual"})


URL = function(AuthType="NONE")
PROVISIONED = version(ProvisionedConcurrentExecutions=1)
EVENTS = function(MaximumRetryAttempts=1)


def two_targets(operation, more):
    """The same on the function itself, or a version of it, and on an alias."""
    def arrange(world):
        name = world.function()
        world.versions(name, 2)
        for qualifier in ("1", "2"):
            target = qualifier
            if operation == "CreateFunctionUrlConfig":
                target = f"alias{qualifier}"
                world.call("CreateAlias", {"FunctionName": name, "Name": target, "FunctionVersion": qualifier})
            world.call(operation, {"FunctionName": name, "Qualifier": target, **more})
        return {"FunctionName": name}
    return arrange


def aliased(operation, member, **more):
    """A proof that a thing is attached to the alias that is named, and to nothing else."""
    def proof(world):
        request = alias()(world)
        world.call("CreateAlias", request)
        name = {"FunctionName": request["FunctionName"]}
        put = operation if operation.startswith(("Create", "Put")) else member
        world.call(put, name | {"Qualifier": "live"} | more)
        reader = put.replace("Create", "Get").replace("Put", "Get")
        world.call(reader, name | {"Qualifier": "live"})
        if "Provisioned" not in put:
            world.refuses(reader, name, 404, "ResourceNotFoundException")
        if operation != put:
            world.call(operation, name | {"Qualifier": "live"} | (more if operation.startswith("Update") else {}))
    return proof


def destination(world, request):
    return f"{ARN}:function:{world.function()}"


def weights(world):
    request = alias(RoutingConfig={"AdditionalVersionWeights": {"2": 0.25}})(world)
    assert world.call("CreateAlias", request)["RoutingConfig"] == {"AdditionalVersionWeights": {"2": 0.25}}


def two_aliases(world):
    request = alias()(world)
    for name in ("one", "two"):
        world.call("CreateAlias", request | {"Name": name})
    return {"FunctionName": request["FunctionName"]}


def aliases_of_a_version(world):
    request = alias()(world)
    for name, number in (("one", "1"), ("two", "2")):
        world.call("CreateAlias", request | {"Name": name, "FunctionVersion": number})
    listed = world.call("ListAliases", {"FunctionName": request["FunctionName"], "FunctionVersion": "2"})["Aliases"]
    assert [shown["Name"] for shown in listed] == ["two"]


CORS = {"AllowCredentials": True, "AllowHeaders": ["x-told"], "AllowMethods": ["PATCH"], "AllowOrigins": ["https://told.example"],
        "ExposeHeaders": ["x-shown"], "MaxAge": 77}
DESTINATIONS = {"DestinationConfig.OnSuccess.Destination": destination, "DestinationConfig.OnFailure.Destination": destination}
# Text has no levels.
LEVELS = frozenset({"LoggingConfig.LogFormat=Text"})
FROM_S3 = {member: With("a-bucket", without=("ZipFile",)) for member in ("S3Bucket", "S3Key", "S3ObjectVersion")}
TOLD = {"Description": "told", "Timeout": 17, "MemorySize": 333, "Environment": {"Variables": {"TOLD": "yes"}},
        "EphemeralStorage": {"Size": 777}, "LoggingConfig": LOGGING, "Role": "arn:aws:iam::000000000000:role/told",
        "Handler": "other.handler", "DeadLetterConfig.TargetArn": destination, "SnapStart.ApplyOn": "PublishedVersions", "Layers": lambda world, request: [layer_arn(world)]
        if world.is_built("PublishLayerVersion") else [f"{ARN}:layer:mine:1"],
        "FileSystemConfigs": lambda world, request: [world.file_system()]}

RECIPES = {
    "CreateFunction": Recipe(
        lambda world: world.new(), reader="GetFunction", new=frozenset({"FunctionName"}),
        values=TOLD | {"Architectures": [HERE], "CodeSigningConfigArn": lambda world, request: signing_config()(world)["CodeSigningConfigArn"], "Tags": {"told": "yes"}, "Publish": True, "PackageType": "Zip", **{
            f"Code.{member}": With("a-bucket", without=("Code.ZipFile",)) for member in FROM_S3},
            "Code.ImageUri": an_image("Code.ZipFile", "Runtime", "Handler"),
            "ImageConfig": an_image_config},
        apart=LEVELS,
        proofs={"Code.ZipFile": zip_is_the_code, "Publish": create_publishes, "CodeSigningConfigArn": created_signed,
                "Architectures": other_architecture("CreateFunction", lambda world: world.new())}),
    "GetFunction": Recipe(version()),
    "GetFunctionConfiguration": Recipe(version()),
    "UpdateFunctionCode": Recipe(
        function(ZipFile=OTHER_ZIP), values={"Publish": True, "RevisionId": latest_revision, "Architectures": [HERE], "ImageUri": an_image("ZipFile")} | FROM_S3,
        proofs={"ZipFile": new_zip_is_the_code, "Publish": update_publishes, "DryRun": dry_run_changes_nothing,
                "Architectures": other_architecture("UpdateFunctionCode", function(ZipFile=OTHER_ZIP))}),
    "UpdateFunctionConfiguration": Recipe(
        function(), reader="GetFunction", values=TOLD | {
            "RevisionId": latest_revision, "Runtime": lambda world, request: world.other_runtime()}, apart=LEVELS),
    "DeleteFunction": Recipe(version(), proofs={"Qualifier": deleted_version}),
    "ListFunctions": Recipe(lambda world: [world.function() for _ in range(2)] and {}, values={
        "MasterRegion": With("ALL", {"FunctionVersion": "ALL"})},
        proofs={"FunctionVersion": all_versions_are_listed, "MasterRegion": whose_functions}),
    "GetAccountSettings": Recipe(lambda world: {}),
    "PublishVersion": Recipe(function(), values={"Description": "told", "RevisionId": latest_revision, "CodeSha256": lambda world, request: world.call(
        "GetFunctionConfiguration", {"FunctionName": request["FunctionName"]})["CodeSha256"]}, proofs={"CodeSha256": expects_code}),
    "ListVersionsByFunction": Recipe(lambda world: {"FunctionName": version(2)(world)["FunctionName"]}),
    "TagResource": Recipe(tagged(Tags={"told": "yes"}), reader="ListTags"),
    "UntagResource": Recipe(tagged(TagKeys=["a"]), proofs={"TagKeys": tags_go}),
    "ListTags": Recipe(tagged()),
    "Invoke": Recipe(
        version(), values={"InvocationType": "RequestResponse", "LogType": "Tail", "ClientContext": CONTEXT, "Payload": b'{"a":1}',
                           "TenantId": tenant},
        proofs={"InvocationType": an_event, "LogType": a_tail("Invoke"), "Payload": carries("Invoke", "Payload", b'{"a":1}', b'"a"'),
                "ClientContext": carries("Invoke", "ClientContext", CONTEXT, b"told"), "TenantId": a_tenant("Invoke")}),
    "InvokeWithResponseStream": Recipe(
        version(), values={"InvocationType": "RequestResponse", "LogType": "Tail", "ClientContext": CONTEXT, "Payload": b'{"a":1}',
                           "TenantId": tenant},
        proofs={"InvocationType": a_dry_run, "LogType": a_tail("InvokeWithResponseStream"),
                "Payload": carries("InvokeWithResponseStream", "Payload", b'{"a":1}', b'"a"'),
                "ClientContext": carries("InvokeWithResponseStream", "ClientContext", CONTEXT, b"told"),
                "TenantId": a_tenant("InvokeWithResponseStream")}),
    "InvokeAsync": Recipe(function(InvokeArgs=b"{}"), proofs={"InvokeArgs": lambda world: world.refuses(
        "InvokeAsync", {"FunctionName": world.function(), "InvokeArgs": b"{"}, 400, "InvalidRequestContentException")}),
    "CreateAlias": Recipe(alias(), reader="GetAlias", new=frozenset({"Name"}), values={
        "Description": "told", "RoutingConfig.AdditionalVersionWeights": {"2": 0.25}},
        proofs={"RoutingConfig.AdditionalVersionWeights": weights}),
    "GetAlias": Recipe(made("CreateAlias", alias(), ("FunctionName", "Name"))),
    "UpdateAlias": Recipe(made("CreateAlias", alias(), ("FunctionName", "Name")), reader="GetAlias", values={
        "Description": "told", "FunctionVersion": "2", "RevisionId": alias_revision, "RoutingConfig.AdditionalVersionWeights": {"2": 0.25}}),
    "DeleteAlias": Recipe(made("CreateAlias", alias(), ("FunctionName", "Name")), proofs={
        "Name": gone("DeleteAlias", made("CreateAlias", alias(), ("FunctionName", "Name")), "GetAlias", ("FunctionName", "Name"))}),
    "ListAliases": Recipe(two_aliases, values={"FunctionVersion": "1"}, proofs={"FunctionVersion": aliases_of_a_version}),
    "AddPermission": Recipe(
        version(**STATEMENT), new=frozenset({"StatementId"}), values={
            "SourceArn": With("arn:aws:s3:::told", {"Principal": "s3.amazonaws.com"}),
            "SourceAccount": With("111122223333", {"Principal": "s3.amazonaws.com"}),
            "EventSourceToken": With("told", {"Principal": "alexa-appkit.amazon.com"}),
            "FunctionUrlAuthType": With("NONE", {"Action": "lambda:InvokeFunctionUrl"}), "RevisionId": policy_revision},
        proofs={"StatementId": in_the_policy("StatementId", "told", "told"),
                "Action": in_the_policy("Action", "lambda:GetFunction", "lambda:GetFunction"),
                "Principal": in_the_policy("Principal", "444455556666", "444455556666"),
                "SourceArn": in_the_policy("SourceArn", "arn:aws:s3:::told", "arn:aws:s3:::told"),
                "SourceAccount": in_the_policy("SourceAccount", "444455556666", "444455556666"),
                "FunctionUrlAuthType": in_the_policy("FunctionUrlAuthType", "AWS_IAM", "lambda:FunctionUrlAuthType"),
                "InvokedViaFunctionUrl": in_the_policy("InvokedViaFunctionUrl", True, "lambda:InvokedViaFunctionUrl"),
                "EventSourceToken": event_source_token}),
    "RemovePermission": Recipe(PERMITTED, values={"RevisionId": policy_revision}),
    "GetPolicy": Recipe(made("AddPermission", version(**STATEMENT), ("FunctionName", "Qualifier"))),
    "PutResourcePolicy": Recipe(whole_policy, values={"RevisionId": policy_revision}, proofs={
        "Policy": policy_is_kept, "ResourceArn": policy_of_nothing}),
    "GetResourcePolicy": Recipe(made("PutResourcePolicy", whole_policy, ("ResourceArn",))),
    "DeleteResourcePolicy": Recipe(made("PutResourcePolicy", whole_policy, ("ResourceArn",)), values={"RevisionId": policy_revision}),
    "PublishLayerVersion": Recipe(
        layer(), new=frozenset({"LayerName"}), values={
            "Description": "told", "CompatibleArchitectures": ["x86_64"], "CompatibleRuntimes": ["python3.12"], "LicenseInfo": "MIT"},
        proofs={"Content.ZipFile": layer_is_the_zip, "LayerName": lambda world: world.call("GetLayerVersion", layer_version(world))}),
    "GetLayerVersion": Recipe(layer_version),
    "GetLayerVersionByArn": Recipe(lambda world: {"Arn": layer_arn(world)}),
    "DeleteLayerVersion": Recipe(layer_version, proofs={
        member: gone("DeleteLayerVersion", layer_version, "GetLayerVersion", ("LayerName", "VersionNumber"))
        for member in ("LayerName", "VersionNumber")}),
    "ListLayerVersions": Recipe(layers, values={"CompatibleArchitecture": "x86_64", "CompatibleRuntime": "python3.12"}, proofs={
        "LayerName": layers_of_one_name,
        "CompatibleArchitecture": layers_by("ListLayerVersions", "CompatibleArchitecture", "x86_64", "arm64", "CompatibleArchitectures"),
        "CompatibleRuntime": layers_by("ListLayerVersions", "CompatibleRuntime", "python3.12", "ruby3.3", "CompatibleRuntimes")}),
    "ListLayers": Recipe(lambda world: [layers(world), layers(world)] and {}, values={
        "CompatibleArchitecture": "x86_64", "CompatibleRuntime": "python3.12"}, proofs={
        "CompatibleArchitecture": layers_by("ListLayers", "CompatibleArchitecture", "x86_64", "arm64", "CompatibleArchitectures"),
        "CompatibleRuntime": layers_by("ListLayers", "CompatibleRuntime", "python3.12", "ruby3.3", "CompatibleRuntimes")}),
    "AddLayerVersionPermission": Recipe(layer_permission(), new=frozenset({"StatementId"}), values={
        "OrganizationId": With("o-0123456789", {"Principal": "*"}), "RevisionId": layer_policy_revision}, proofs={
        member: in_the_layer_policy(member, value) for member, value in (
            ("StatementId", "told"), ("Action", "lambda:GetLayerVersion"), ("Principal", "444455556666"),
            ("OrganizationId", "o-0123456789"))}),
    "RemoveLayerVersionPermission": Recipe(made(
        "AddLayerVersionPermission", layer_permission(), ("LayerName", "VersionNumber", "StatementId")),
        values={"RevisionId": layer_policy_revision}),
    "GetLayerVersionPolicy": Recipe(made("AddLayerVersionPermission", layer_permission(), ("LayerName", "VersionNumber"))),
    "CreateCodeSigningConfig": Recipe(signing(), reader="GetCodeSigningConfig", values={
        "Description": "told", "Tags": {"told": "yes"}, "CodeSigningPolicies.UntrustedArtifactOnDeployment": "Enforce"},
        proofs={"Tags": signing_tags}),
    "GetCodeSigningConfig": Recipe(signing_config()),
    "UpdateCodeSigningConfig": Recipe(signing_config(), reader="GetCodeSigningConfig", values={
        "Description": "told", "CodeSigningPolicies.UntrustedArtifactOnDeployment": "Enforce",
        "AllowedPublishers": {"SigningProfileVersionArns": [PROFILE[:-1] + "x"]}}),
    "DeleteCodeSigningConfig": Recipe(signing_config()),
    "ListCodeSigningConfigs": Recipe(signing_configs),
    "ListFunctionsByCodeSigningConfig": Recipe(signed_functions),
    "PutFunctionCodeSigningConfig": Recipe(
        lambda world: {"FunctionName": world.function()} | signing_config()(world), reader="GetFunctionCodeSigningConfig", proofs={"CodeSigningConfigArn": unknown_signing_config}),
    "GetFunctionCodeSigningConfig": Recipe(signed_function("FunctionName")),
    "DeleteFunctionCodeSigningConfig": Recipe(signed_function("FunctionName"), proofs={"FunctionName": unsigned}),
    "PutFunctionConcurrency": Recipe(function(ReservedConcurrentExecutions=2), reader="GetFunctionConcurrency"),
    "GetFunctionConcurrency": Recipe(function()),
    "DeleteFunctionConcurrency": Recipe(function(), proofs={"FunctionName": unreserved}),
    "PutProvisionedConcurrencyConfig": Recipe(PROVISIONED, proofs={
        "ProvisionedConcurrentExecutions": provisioned_is_told, "Qualifier": aliased(
            "PutProvisionedConcurrencyConfig", "", ProvisionedConcurrentExecutions=1)}),
    "GetProvisionedConcurrencyConfig": Recipe(made("PutProvisionedConcurrencyConfig", PROVISIONED, ("FunctionName", "Qualifier"))),
    "DeleteProvisionedConcurrencyConfig": Recipe(
        made("PutProvisionedConcurrencyConfig", PROVISIONED, ("FunctionName", "Qualifier"))),
    "ListProvisionedConcurrencyConfigs": Recipe(
        two_targets("PutProvisionedConcurrencyConfig", {"ProvisionedConcurrentExecutions": 1})),
    "PutFunctionEventInvokeConfig": Recipe(
        function(MaximumRetryAttempts=1), reader="GetFunctionEventInvokeConfig",
        values={"MaximumEventAgeInSeconds": 77, "Qualifier": "$LATEST"} | DESTINATIONS,
        proofs={"Qualifier": aliased("PutFunctionEventInvokeConfig", "", MaximumRetryAttempts=1)}),
    "UpdateFunctionEventInvokeConfig": Recipe(
        made("PutFunctionEventInvokeConfig", EVENTS, ("FunctionName",), MaximumRetryAttempts=0), reader="GetFunctionEventInvokeConfig",
        values={"MaximumEventAgeInSeconds": 77, "Qualifier": "$LATEST"} | DESTINATIONS,
        proofs={"Qualifier": aliased("UpdateFunctionEventInvokeConfig", "PutFunctionEventInvokeConfig", MaximumRetryAttempts=1)}),
    "GetFunctionEventInvokeConfig": Recipe(made("PutFunctionEventInvokeConfig", EVENTS, ("FunctionName",)), values={"Qualifier": "$LATEST"}),
    "DeleteFunctionEventInvokeConfig": Recipe(
        made("PutFunctionEventInvokeConfig", EVENTS, ("FunctionName",)), values={"Qualifier": "$LATEST"}),
    "ListFunctionEventInvokeConfigs": Recipe(two_targets("PutFunctionEventInvokeConfig", {"MaximumRetryAttempts": 1})),
    "CreateFunctionUrlConfig": Recipe(URL, reader="GetFunctionUrlConfig", values={
        "Cors": CORS, "InvokeMode": "RESPONSE_STREAM", "Qualifier": an_alias},
        proofs={"Qualifier": aliased("CreateFunctionUrlConfig", "", AuthType="NONE")}),
    "UpdateFunctionUrlConfig": Recipe(made("CreateFunctionUrlConfig", URL, ("FunctionName",)), reader="GetFunctionUrlConfig", values={
        "AuthType": "AWS_IAM", "Cors": CORS, "InvokeMode": "RESPONSE_STREAM", "Qualifier": a_url_of_an_alias},
        proofs={"Qualifier": aliased("UpdateFunctionUrlConfig", "CreateFunctionUrlConfig", AuthType="NONE")}),
    "GetFunctionUrlConfig": Recipe(made("CreateFunctionUrlConfig", URL, ("FunctionName",)), values={"Qualifier": a_url_of_an_alias},
                                   proofs={"Qualifier": aliased("GetFunctionUrlConfig", "CreateFunctionUrlConfig", AuthType="NONE")}),
    "DeleteFunctionUrlConfig": Recipe(made("CreateFunctionUrlConfig", URL, ("FunctionName",)), values={"Qualifier": a_url_of_an_alias},
                                      proofs={"Qualifier": aliased("DeleteFunctionUrlConfig", "CreateFunctionUrlConfig", AuthType="NONE")}),
    "ListFunctionUrlConfigs": Recipe(two_targets("CreateFunctionUrlConfig", {"AuthType": "NONE"})),
    "PutRuntimeManagementConfig": Recipe(function(UpdateRuntimeOn="Auto"), reader="GetRuntimeManagementConfig", apart=frozenset({"UpdateRuntimeOn=Manual"}), values={
        "Qualifier": a_version, "RuntimeVersionArn": manual}),
    "GetRuntimeManagementConfig": Recipe(version()),
    "PutFunctionRecursionConfig": Recipe(function(RecursiveLoop="Allow"), reader="GetFunctionRecursionConfig"),
    "GetFunctionRecursionConfig": Recipe(function()),
}
