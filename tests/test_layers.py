"""Layers: published, permitted and deleted as on Lambda, and what a function sees of them at /opt."""

import base64
import glob
import hashlib
import json
import os
import re
import urllib.request
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from harness import aws, lab
from harness.attack import start_of, why_not_forked
from harness.waiting import until
from harness.zips import make_zip, zip_with_symlink

ARN = "arn:aws:lambda:us-east-1:000000000000:layer:"
OFF = {"Environment": {"Variables": {"MARTLET_FORK_START": "off"}}}


def publish(client, files, name=None, **more) -> str:
    """Publishes a version and gives its ARN."""
    content = files if isinstance(files, bytes) else make_zip(files, executable=("bootstrap", "bin/tool", "wrapper"))
    answer = client.publish_layer_version(LayerName=name or lab.unique("layer"), Content={"ZipFile": content}, **more)
    return answer["LayerVersionArn"]


def parts(arn: str) -> dict:
    layer, _, number = arn.rpartition(":")
    return {"LayerName": layer, "VersionNumber": int(number)}


def refusal(call, **arguments) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]


# The registry

def test_a_version_is_published_shown_and_downloaded(lam):
    name, zipped = lab.unique("layer"), make_zip({"python/mine.py": "X = 1\n"})
    published = lam.publish_layer_version(
        LayerName=name, Description="the first", Content={"ZipFile": zipped}, LicenseInfo="MIT",
        CompatibleRuntimes=["python3.12", "python3.13"], CompatibleArchitectures=["x86_64"])
    assert published["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert (published["LayerArn"], published["LayerVersionArn"], published["Version"]) == (ARN + name, f"{ARN}{name}:1", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000", published["CreatedDate"])
    digest = base64.b64encode(hashlib.sha256(zipped).digest()).decode()
    assert (published["Content"]["CodeSha256"], published["Content"]["CodeSize"]) == (digest, len(zipped))
    for shown in (lam.get_layer_version(LayerName=name, VersionNumber=1),
                  lam.get_layer_version(LayerName=ARN + name, VersionNumber=1),
                  lam.get_layer_version_by_arn(Arn=f"{ARN}{name}:1")):
        for member in ("LayerArn", "LayerVersionArn", "Version", "Description", "CreatedDate", "LicenseInfo",
                       "CompatibleRuntimes", "CompatibleArchitectures"):
            assert shown[member] == published[member], member
        assert urllib.request.urlopen(shown["Content"]["Location"]).read() == zipped


def test_numbers_grow_and_are_not_used_again(lam):
    name = lab.unique("layer")
    arns = [publish(lam, {"file": str(number)}, name) for number in range(3)]
    assert [arn.rpartition(":")[2] for arn in arns] == ["1", "2", "3"]
    assert lam.delete_layer_version(LayerName=name, VersionNumber=3)["ResponseMetadata"]["HTTPStatusCode"] == 204
    lam.delete_layer_version(LayerName=name, VersionNumber=3)
    assert publish(lam, {"file": "x"}, name).endswith(":4")
    for number in (1, 2, 4):
        lam.delete_layer_version(LayerName=name, VersionNumber=number)
    assert name not in [layer["LayerName"] for layer in lam.list_layers()["Layers"]]
    assert publish(lam, {"file": "y"}, name).endswith(":5")


def test_lists_filter_and_page(lam):
    prefix = lab.unique("list")
    for letter in "abc":
        publish(lam, {"f": letter}, prefix + letter, CompatibleRuntimes=["python3.12"], CompatibleArchitectures=["x86_64"])
    for number in range(4):
        publish(lam, {"f": str(number)}, prefix + "b", CompatibleRuntimes=["nodejs20.x"])
    pages = list(lam.get_paginator("list_layers").paginate(PaginationConfig={"PageSize": 2}))
    layers = [layer for page in pages for layer in page["Layers"] if layer["LayerName"].startswith(prefix)]
    assert [layer["LayerName"] for layer in layers] == [prefix + letter for letter in "abc"]
    assert all(len(page["Layers"]) <= 2 for page in pages) and len(pages) > 1
    assert [layer["LatestMatchingVersion"]["Version"] for layer in layers] == [1, 5, 1]
    python = [layer for layer in lam.list_layers(CompatibleRuntime="python3.12", CompatibleArchitecture="x86_64")["Layers"]
              if layer["LayerName"].startswith(prefix)]
    assert [layer["LatestMatchingVersion"]["Version"] for layer in python] == [1, 1, 1], "the latest that matches"
    pages = list(lam.get_paginator("list_layer_versions").paginate(LayerName=prefix + "b", PaginationConfig={"PageSize": 2}))
    assert [version["Version"] for page in pages for version in page["LayerVersions"]] == [5, 4, 3, 2, 1]
    assert len(pages) == 3
    node = lam.list_layer_versions(LayerName=prefix + "b", CompatibleRuntime="nodejs20.x")["LayerVersions"]
    assert [version["Version"] for version in node] == [5, 4, 3, 2]
    assert lam.list_layer_versions(LayerName="never-published")["LayerVersions"] == []


def test_what_is_not_there_or_not_right_is_refused(lam, loose):
    gone = {"LayerName": "never-published", "VersionNumber": 1}
    assert refusal(lam.get_layer_version, **gone) == ("ResourceNotFoundException", "The resource you requested does not exist.")
    assert refusal(lam.get_layer_version_by_arn, Arn=ARN + "never-published:1")[0] == "ResourceNotFoundException"
    assert refusal(lam.get_layer_version, LayerName="x", VersionNumber=0) == (
        "InvalidParameterValueException", "Layer Version Cannot be less than 1")
    assert refusal(loose.get_layer_version_by_arn, Arn=ARN + "no-version")[0] in ("ValidationException", "InvalidParameterValueException")
    assert refusal(lam.publish_layer_version, LayerName="x", Content={"ZipFile": b"no zip"})[0] == "InvalidParameterValueException"
    assert "S3Bucket" in refusal(lam.publish_layer_version, LayerName="x", Content={"S3Bucket": "bucket", "S3Key": "k"})[1]
    foreign = "arn:aws:lambda:us-east-1:111111111111:layer:theirs"
    assert refusal(lam.get_layer_version, LayerName=foreign, VersionNumber=1)[0] == "AccessDeniedException"
    assert refusal(lam.publish_layer_version, LayerName=foreign, Content={"ZipFile": make_zip({"f": ""})})[0] == "AccessDeniedException"


def test_permissions_of_a_version(lam):
    arn = publish(lam, {"f": "x"})
    of = parts(arn)
    everybody = dict(of, StatementId="all", Action="lambda:GetLayerVersion", Principal="*")
    added = lam.add_layer_version_permission(**everybody)
    assert added["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert json.loads(added["Statement"]) == {"Sid": "all", "Effect": "Allow", "Principal": "*",
                                              "Action": "lambda:GetLayerVersion", "Resource": arn}
    assert refusal(lam.add_layer_version_permission, **everybody)[0] == "ResourceConflictException"
    one = dict(everybody, StatementId="one", Principal="111111111111")
    assert refusal(lam.add_layer_version_permission, **one, RevisionId="wrong")[0] == "PreconditionFailedException"
    second = lam.add_layer_version_permission(**one, RevisionId=added["RevisionId"])
    assert second["RevisionId"] != added["RevisionId"]
    assert "OrganizationId" in refusal(lam.add_layer_version_permission, **dict(everybody, StatementId="o"),
                                       OrganizationId="o-0123456789")[1]
    shown = lam.get_layer_version_policy(**of)
    policy = json.loads(shown["Policy"])
    assert shown["RevisionId"] == second["RevisionId"] and policy["Version"] == "2012-10-17"
    assert [(s["Sid"], s["Principal"]) for s in policy["Statement"]] == [
        ("all", "*"), ("one", {"AWS": "arn:aws:iam::111111111111:root"})]
    assert refusal(lam.remove_layer_version_permission, **of, StatementId="two") == (
        "ResourceNotFoundException", "Statement two is not found in resource policy.")
    assert lam.remove_layer_version_permission(**of, StatementId="one")["ResponseMetadata"]["HTTPStatusCode"] == 204
    lam.remove_layer_version_permission(**of, StatementId="all")
    assert refusal(lam.get_layer_version_policy, **of) == (
        "ResourceNotFoundException", "No policy is associated with the given resource.")
    missing = dict(everybody, LayerName="never-published")
    assert refusal(lam.add_layer_version_permission, **missing) == (
        "ResourceNotFoundException", f"Layer version {ARN}never-published:{of['VersionNumber']} does not exist.")


# What a function sees

@pytest.mark.parametrize("start", ["fork", "ordinary"])
def test_python_functions_import_what_layers_bring(lam, server, deploy, python, start):
    low = publish(lam, {"python/mine.py": "FROM = 'low'\n", "python/only_low.py": "X = 'low'\n", "low": "1",
                        "bin/tool": "#!/bin/sh\necho tool\n", f"python/lib/{python}/site-packages/site_made.py": "Y = 'site'\n"})
    high = publish(lam, {"python/mine.py": "FROM = 'high'\n", "high": "1", "python/json.py": "raise Exception('shadowed')\n"})
    code = """
        import mine, only_low, site_made, subprocess, os, sys, json
        AT_INIT = [mine.FROM, only_low.X, site_made.Y, mine.__file__]
        def handler(event, context):
            try:
                open("/opt/new", "w")
                written = True
            except OSError:
                written = False
            tool = subprocess.run(["tool"], capture_output=True, text=True).stdout
            return AT_INIT + [sorted(n for n in os.listdir("/opt") if n != "python"), tool, written]
    """
    function = deploy(code, python, Layers=[low, high], **(OFF if start == "ordinary" else {}))
    answer = function.call()
    assert answer == ["high", "low", "site", "/opt/python/mine.py", ["bin", "high", "low"], "tool\n", False]
    if start == "ordinary":
        assert start_of(server, function.name)["Start"] == "ordinary"
    elif why := why_not_forked(server, function.name):
        pytest.skip(why)
    else:
        assert function.call() == answer


def test_the_order_of_layers_is_theirs_to_choose(lam, deploy, python):
    arns = [publish(lam, {"which": letter, letter: "", f"d/{letter}": ""}) for letter in "abc"]
    code = "import os\ndef handler(e, c):\n    return open('/opt/which').read() + ' ' + ''.join(sorted(os.listdir('/opt/d')))\n"
    function = deploy(code, python, Layers=arns)
    assert function.call() == "c abc"
    changed = lab.change(lam, "update_function_configuration", FunctionName=function.name, Layers=[arns[2], arns[0]])
    assert [layer["Arn"] for layer in changed["Layers"]] == [arns[2], arns[0]]
    assert all(layer["CodeSize"] > 0 for layer in changed["Layers"])
    assert function.call() == "a ac"
    lab.change(lam, "update_function_configuration", FunctionName=function.name, Layers=[arns[1]])
    assert function.call() == "b b"
    lab.change(lam, "update_function_configuration", FunctionName=function.name, Timeout=5)
    assert function.call() == "b b", "what is not said stays"
    lab.change(lam, "update_function_configuration", FunctionName=function.name, Layers=[])
    assert "Layers" not in lam.get_function_configuration(FunctionName=function.name)
    assert function.fail()["errorType"] == "FileNotFoundError"


@pytest.mark.parametrize("start", ["fork", "ordinary"])
def test_node_functions_require_what_layers_bring(lam, deploy, node, start):
    major = node[len("nodejs"):-len(".x")]
    low = publish(lam, {"nodejs/node_modules/mine/index.js": "module.exports = 'low';",
                        "nodejs/node_modules/only-low/package.json": '{"main": "m.js"}',
                        "nodejs/node_modules/only-low/m.js": "module.exports = require('mine');",
                        f"nodejs/node{major}/node_modules/of-major/index.js": "module.exports = 'major';"})
    high = publish(lam, {"nodejs/node_modules/mine/index.js": "module.exports = 'high';"})
    code = """
        const atInit = [require('mine'), require('only-low'), require('of-major')];
        exports.handler = async () => [...atInit, require.resolve('mine')];
    """
    function = deploy(code, node, Layers=[low, high], **(OFF if start == "ordinary" else {}))
    assert function.call() == ["high", "high", "major", "/opt/nodejs/node_modules/mine/index.js"]


@pytest.mark.parametrize("start", ["fork", "ordinary"])
@pytest.mark.parametrize("place", ["layer", "package"])
def test_libraries_in_lib_are_found_by_the_linker(lam, deploy, python, start, place):
    library = next(iter(sorted(glob.glob("/lib/*/libz.so.1") + glob.glob("/usr/lib/*/libz.so.1"))), None)
    if not library:
        pytest.skip("this machine has no libz to copy")
    files = {"lib/libmartlet-test.so": Path(library).read_bytes()}
    code = ("import ctypes\nlibrary = ctypes.CDLL('libmartlet-test.so')\nlibrary.zlibVersion.restype = ctypes.c_char_p\n"
            "def handler(e, c):\n    return library.zlibVersion().decode()\n")
    config = OFF if start == "ordinary" else {}
    if place == "layer":
        function = deploy(code, python, Layers=[publish(lam, files)], **config)
    else:
        function = deploy({"lambda_function.py": code} | files, python, **config)
    assert re.match(r"\d+\.\d+", function.call())


def test_a_layer_brings_the_runtime_of_a_provided_function(lam, deploy):
    runtime = publish(lam, {"bootstrap": lab.SHELL_LAB})
    function = deploy({"function.sh": lab.SHELL_LAB_FUNCTION}, "provided.al2023", "function.handler", Layers=[runtime], Timeout=10)
    command = base64.b64encode(b"cat /proc/$PPID/cmdline | tr '\\0' ' '; ls /opt").decode()
    assert "/opt/bootstrap" in base64.b64decode(function.call({"code": command})).decode()
    without = deploy({"function.sh": ""}, "provided.al2023", "x", Layers=[publish(lam, {"other": ""})])
    assert "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]" in without.fail()["errorMessage"]


def test_a_layer_brings_the_wrapper_of_an_interpreter(lam, deploy, python):
    wrapper = publish(lam, {"wrapper": "#!/bin/sh\nexport WRAPPED=yes\nexec \"$@\"\n"})
    function = deploy("import os\ndef handler(e, c):\n    return os.environ.get('WRAPPED')\n", python, Layers=[wrapper],
                      Environment={"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrapper"}})
    assert function.call() == "yes"


def test_a_published_version_keeps_its_layers(lam, deploy, python):
    first, second = publish(lam, {"which": "first"}), publish(lam, {"which": "second"})
    function = deploy("def handler(e, c):\n    return open('/opt/which').read()\n", python, Layers=[first])
    version = lam.publish_version(FunctionName=function.name)
    assert [layer["Arn"] for layer in version["Layers"]] == [first]
    lab.change(lam, "update_function_configuration", FunctionName=function.name, Layers=[second])
    assert lam.publish_version(FunctionName=function.name)["Version"] == "2", "other layers are another version"
    assert (function.call(Qualifier="1"), function.call(Qualifier="2"), function.call()) == ("first", "second", "second")
    listed = next(f for f in lam.list_functions()["Functions"] if f["FunctionName"] == function.name)
    assert [layer["Arn"] for layer in listed["Layers"]] == [second]


def test_links_in_layers_stay_inside(lam, deploy, python):
    link = publish(lam, zip_with_symlink("current", "v1/data", {"v1/data": "linked"}))
    other = publish(lam, {"v1/data": "replaced", "extra": ""})
    code = "def handler(e, c):\n    return open('/opt/current').read()\n"
    assert deploy(code, python, Layers=[link]).call() == "linked"
    assert deploy(code, python, Layers=[link, other]).call() == "replaced"


# What is refused when layers are attached

def test_layers_that_cannot_be_attached(lam, deploy, python):
    function = deploy("def handler(e, c):\n    return 1\n", python)
    arns = [publish(lam, {"f": str(number)}) for number in range(6)]

    def refused(layers):
        return refusal(lam.update_function_configuration, FunctionName=function.name, Layers=layers)

    invalid = "InvalidParameterValueException"
    assert refused(arns) == (invalid, "Cannot reference more than 5 layers.")
    again = publish(lam, {"f": "again"}, arns[0].split(":")[6])
    assert refused([arns[0], again]) == (
        invalid, "Two different versions of the same layer are not allowed to be referenced in the same function. "
                 f"{arns[0]} and {again} are versions of the same layer.")
    assert refused([arns[0], arns[0]])[0] == invalid
    assert refused([arns[0] + "9"]) == (invalid, f"Layer version {arns[0]}9 does not exist.")
    assert refused([arns[0].replace("us-east-1", "eu-west-3")]) == (
        invalid, "Layers are not in the same region as the function. Layers are expected to be in region us-east-1.")
    assert refused(["arn:aws:lambda:us-east-1:111111111111:layer:theirs:1"])[0] == "AccessDeniedException"
    assert refused(["mine"])[0] in (invalid, "ValidationException")
    with pytest.raises(ClientError, match="does not exist"):
        lab.create(lam, "", python, Layers=[arns[0] + "9"])
    assert "Layers" not in lam.get_function_configuration(FunctionName=function.name)


@pytest.mark.slow
def test_code_and_layers_have_250_mb_together(lam, deploy, python):
    half, rest = publish(lam, {"zeros": bytes(125 << 20)}), publish(lam, {"zeros": bytes(115 << 20)})
    large = make_zip({"lambda_function.py": "def handler(e, c):\n    return 1\n", "zeros": bytes(20 << 20)})
    message = re.compile(rf"Function code combined with layers exceeds the maximum allowed size of {250 << 20} bytes. "
                         rf"The actual size is {(260 << 20) // 1000}\d\d\d bytes.")
    name = deploy(large, python).name
    code, text = refusal(lam.update_function_configuration, FunctionName=name, Layers=[half, rest])
    assert code == "InvalidParameterValueException" and message.fullmatch(text), text
    assert message.fullmatch(refusal(lam.create_function, FunctionName=lab.unique(), Runtime=python, Role=aws.ROLE, Layers=[rest, half],
                                     Handler="lambda_function.handler", Code={"ZipFile": large})[1])


# Deletion, room on disk, restarts

def folders(server) -> dict[str, Path]:
    return {path.name: path for path in (server.data_dir / "packages").iterdir() if not path.name.startswith(".")}


def hexdigest(client, arn) -> str:
    return base64.b64decode(client.get_layer_version(**parts(arn))["Content"]["CodeSha256"]).hex()


@pytest.mark.slow
def test_a_deleted_version_serves_the_functions_that_have_it(new_server, runtimes, python):
    server = new_server().start()
    lam = aws.client(server)
    arn, other = publish(lam, {"which": "kept"}), publish(lam, {"other": ""})
    digest = hexdigest(lam, arn)
    code = "def handler(e, c):\n    return open('/opt/which').read()\n"
    first = lab.create(lam, code, python, Layers=[arn])
    both = lab.create(lam, code, python, Layers=[arn, other])
    assert (first.call(), both.call()) == ("kept", "kept")
    lam.delete_layer_version(**parts(arn))
    assert refusal(lam.get_layer_version, **parts(arn))[0] == "ResourceNotFoundException"
    with pytest.raises(ClientError, match="does not exist"):
        lab.create(lam, code, python, Layers=[arn])
    # Whatever starts anew starts with it, also after a restart, and also where folders are gone meanwhile.
    server.terminate()
    for folder in folders(server).values():
        os.system(f"rm -rf {folder}")
    server.start()
    lam = aws.client(server)
    for function in (first, both):
        function.client = lam
        lab.settled(lam, function.name)
        until(lambda: aws.Raw(server).call("GET", aws.function_path(function.name)).json["Configuration"].get("Martlet"), "it to be unpacked again")
        assert function.call() == "kept"
    assert lam.get_function_configuration(FunctionName=first.name)["Layers"][0]["Arn"] == arn
    assert digest in folders(server)
    lam.delete_function(FunctionName=first.name)
    assert both.call() == "kept" and digest in folders(server)
    lam.delete_function(FunctionName=both.name)
    until(lambda: set(folders(server)) <= {hexdigest(lam, other)}, "what nothing uses any more to be removed", 90)
    assert not (server.data_dir / "blobs" / digest).exists() and not list((server.data_dir / "blobs").rglob(digest))
    assert publish(lam, {"which": "new"}, arn.split(":")[6]).endswith(":2"), "numbers survive restarts and deletions"


def test_the_same_content_lies_on_disk_once(new_server, runtimes, python):
    server = new_server().start()
    lam = aws.client(server)
    content = make_zip({"big": os.urandom(1 << 20), "python/m.py": ""})
    first, second = publish(lam, content), publish(lam, content)
    other = publish(lam, {"other": "x"})
    code = "import os\ndef handler(e, c):\n    return os.stat('/opt/big').st_ino\n"
    functions = [lab.create(lam, code, python, Layers=layers) for layers in ([first], [second], [first, other], [second, other])]
    numbers = {function.call() for function in functions}
    assert len(numbers) == 1, "alone and among others, it is the same file"
    copies = [path for path in (server.data_dir / "packages").glob("*/big")]
    assert len(copies) == 2 and {path.stat().st_ino for path in copies} == numbers


def test_layers_count_as_code_storage(lam):
    before = lam.get_account_settings()["AccountUsage"]["TotalCodeSize"]
    zipped = make_zip({"f": os.urandom(5000)})
    arn = publish(lam, zipped)
    assert lam.get_account_settings()["AccountUsage"]["TotalCodeSize"] == before + len(zipped)
    lam.delete_layer_version(**parts(arn))
    assert lam.get_account_settings()["AccountUsage"]["TotalCodeSize"] == before
