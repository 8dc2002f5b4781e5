"""A walk over every member of every operation: each is applied, which is proven, or refused by its name.

Nothing here knows which operations are built: the server tells. What a good request looks like, and how members show
that they are applied where no general rule finds out, stands in `recipes.py`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from botocore.exceptions import ClientError
from botocore.loaders import Loader
from botocore.model import ServiceModel

from . import aws, lab
from .aws import ACCOUNT, REGION, ROLE
from .zips import make_zip

MODEL = ServiceModel(Loader().load_service_model("lambda", "service-2"))
OPERATIONS = sorted(MODEL.operation_names)
ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}"
ECHO = "def handler(event, context):\n    return {'event': event, 'client': str(getattr(context, 'client_context', None))}\n"
# Enumerations with more values than these are tried with one: the others are names of kinds, not settings.
FEW = 6
NOT_BUILT = re.compile(r"\b(is|are) not (supported|implemented|built)\b")
# Nothing has these names.
NOTHING = {
    "FunctionName": "nobody", "Qualifier": "4711", "Name": "nobody", "LayerName": "nobody", "VersionNumber": 4711,
    "StatementId": "nobody", "Resource": f"{ARN}:function:nobody", "ResourceArn": f"{ARN}:function:nobody",
    "Arn": f"{ARN}:layer:nobody:1", "CodeSigningConfigArn": f"{ARN}:code-signing-config:csc-00000000000004711",
    "FunctionVersion": "4711",
}
# Values that the patterns of the model take, by member.
SAMPLES = {
    "S3Bucket": "a-bucket", "SourceKMSKeyArn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/00000000-0000-0000-0000-000000000000",
    "KMSKeyArn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/00000000-0000-0000-0000-000000000000",
    "TargetArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:a-queue", "Destination": f"arn:aws:sqs:{REGION}:{ACCOUNT}:a-queue",
    "ImageUri": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/an/image:latest",
    "CapacityProviderArn": f"{ARN}:capacity-provider:mine", "RuntimeArn": f"{ARN}:runtime/mine/version/1",
    "RuntimeVersionArn": f"arn:aws:lambda:{REGION}::runtime:{'0' * 64}", "CodeSigningConfigArn": NOTHING["CodeSigningConfigArn"],
    "PrincipalOrgID": "o-0123456789", "OrganizationId": "o-0123456789", "SourceAccount": "111122223333", "MasterRegion": "ALL",
    "LogGroup": "/told", "LocalMountPath": "/mnt/told", "SubnetIds": "subnet-12345678", "SecurityGroupIds": "sg-12345678",
    "Layers": f"{ARN}:layer:mine:1", "TenantId": "a-tenant", "DurableExecutionName": "an-execution", "ExecutionEnvironmentMemoryGiBPerVCpu": 2.0, "RuntimeAlias": "an-alias",
}


@dataclass(frozen=True)
class With:
    """A value that needs other members beside it, or cannot stand beside some of the least request's."""

    value: object
    more: dict = field(default_factory=dict)
    without: tuple = ()


@dataclass(frozen=True)
class Recipe:
    """How an operation is called so that it succeeds, and how it shows what its members did.

    `arrange` makes what is needed and gives the least good request. `values` are what members are tried with, by path; a
    function is called with the world and the request. `reader` is the operation that shows what this one changed. `new`
    are members that name what does not exist yet. A proof is called with the world, and asserts. `apart` are choices
    (`Member=value`) that other members of the request are in the way of; their proofs try them.
    """

    arrange: Callable
    values: dict = field(default_factory=dict)
    reader: str | None = None
    new: frozenset = frozenset()
    proofs: dict = field(default_factory=dict)
    apart: frozenset = frozenset()


@dataclass
class Row:
    """What one operation came to."""

    operation: str
    built: bool
    applied: list = field(default_factory=list)
    refused: list = field(default_factory=list)
    # The operation through which members would be proven, and that is not built.
    waits: str | None = None

    def __str__(self):
        if not self.built:
            return f"| {self.operation} | not built | | |"
        if self.waits:
            return f"| {self.operation} | works | proven once {self.waits} is built | |"
        return f"| {self.operation} | works | {len(self.applied)} | {', '.join(f'`{path}`' for path in self.refused)} |"


def members(shape, trail=()):
    """(path, shape) of each leaf of an input: no structure and no list of structures is one."""
    if shape.type_name == "structure" and (shape.members or not trail):
        for name, member in shape.members.items():
            yield from members(member, (*trail, name))
    elif shape.type_name == "list" and shape.member.type_name == "structure":
        yield from members(shape.member, (*trail, "[]"))
    else:
        yield trail, shape


def dotted(path):
    return ".".join(step for step in path if step != "[]")


def sample(shape, name):
    """Some value that the model takes and that is no default."""
    if shape.type_name == "structure":
        return {member: sample(inner, member) for member, inner in shape.members.items() if member in shape.required_members}
    if name in SAMPLES and shape.type_name in ("string", "float", "double"):
        return SAMPLES[name]
    if shape.type_name == "string":
        return shape.enum[-1] if shape.enum else "told"
    if shape.type_name in ("integer", "long"):
        return max(shape.metadata.get("min", 1), 1)
    if shape.type_name == "list":
        return [sample(shape.member, name)]
    if shape.type_name == "map":
        return {sample(shape.key, name): sample(shape.value, name)}
    return {"boolean": True, "blob": b"told", "timestamp": 0, "double": 1.0, "float": 1.0}[shape.type_name]


def placed(shape, path, value):
    """The value of the top member of `path` in which the leaf has `value`, with what the model requires beside it."""
    if not path:
        return value
    step, *rest = path
    if step == "[]":
        return [placed(shape.member, rest, value)]
    around = {name: sample(inner, name) for name, inner in shape.members.items() if name in shape.required_members}
    return around | {step: placed(shape.members[step], rest, value)}


def leaf(value, path):
    """The value at the end of a path, if it is there."""
    for step in path:
        value = value[0] if step == "[]" else value.get(step)
        if value is None:
            return None
    return value


def merged(value, over):
    """`value` with what `over` has besides or in its place."""
    if isinstance(value, dict) and isinstance(over, dict):
        return value | {key: merged(value[key], inner) if key in value else inner for key, inner in over.items()}
    if isinstance(value, list) and isinstance(over, list) and value and over:
        return [merged(value[0], over[0]), *over[1:]]
    return over


def few(shape):
    return shape.type_name == "string" and 0 < len(shape.enum) <= FEW


def without(request, names):
    for name in names:
        top, _, inner = name.partition(".")
        request = request | {top: without(request[top], [inner])} if inner else {key: request[key] for key in request if key != top}
    return request


def replaced(value, path, other):
    if not path:
        return other
    step, *rest = path
    if step == "[]":
        return [replaced(value[0], rest, other)]
    return value | {step: replaced(value[step], rest, other)}


def shows(document, name, value):
    """Whether a member called `name` has this value, or holds it, anywhere in an answer."""
    if isinstance(document, list):
        return any(shows(item, name, value) for item in document)
    if not isinstance(document, dict):
        return False
    if name in document and holds(document[name], value):
        return True
    return any(shows(inner, name, value) for inner in document.values())


def holds(shown, value):
    if isinstance(shown, dict) and isinstance(value, dict):
        return all(key in shown and holds(shown[key], inner) for key, inner in value.items())
    if isinstance(shown, list) and isinstance(value, list):
        return all(any(holds(item, inner) for item in shown) for inner in value)
    if isinstance(shown, dict):
        return value in [inner for inner in shown.values() if isinstance(inner, type(value))]
    return shown == value and type(shown) is type(value)


def found(document, name):
    """The first value of a member called `name`, wherever it is."""
    if isinstance(document, dict):
        if name in document:
            return document[name]
        document = list(document.values())
    if isinstance(document, list):
        for inner in document:
            if (value := found(inner, name)) is not None:
                return value
    return None


class Waits(Exception):
    """An operation that the walk needs beside the one that it walks over is not built."""


class World:
    """The server under the walk, and what recipes made on it."""

    def __init__(self, server, python):
        self.server, self.python = server, python
        self.client = aws.client(server, validate=False)
        self.raw = aws.Raw(server)
        self.made = []
        self.asked = None

    def call(self, operation, request):
        method = next(py for py, name in self.client.meta.method_to_api_mapping.items() if name == operation)
        try:
            answer = getattr(self.client, method)(**request)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 501 and operation != self.asked:
                raise Waits(operation) from error
            raise
        answer["Status"] = answer.pop("ResponseMetadata")["HTTPStatusCode"]
        if "EventStream" in answer:
            answer["EventStream"] = list(answer["EventStream"])
        if hasattr(answer.get("Payload"), "read"):
            answer["Payload"] = answer["Payload"].read()
        if "FunctionName" in request and answer.get("LastUpdateStatus") == "InProgress" or answer.get("State") == "Pending":
            lab.settled(self.client, request["FunctionName"])
        return answer

    def refusal(self, operation, request):
        """The error that a request has to come to."""
        try:
            answer = self.call(operation, request)
        except ClientError as error:
            return error.response
        raise AssertionError(f"{operation} took {request}: {answer}")

    def refuses(self, operation, request, status, code=None):
        answer = self.refusal(operation, request)
        got = (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"])
        assert got[0] == status and code in (None, got[1]), f"{operation} {request}: {answer['Error']}"

    def is_built(self, operation):
        """Asked of the server: one that is not built is refused by name before anything in it is read."""
        self.asked = operation
        shape = MODEL.operation_model(operation).input_shape
        request = {}
        for name, member in (shape.members.items() if shape else ()):
            if member.serialization.get("location") == "uri":
                request[name] = NOTHING.get(name, sample(member, name))
        try:
            self.call(operation, request)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 501:
                return True
            assert error.response["Error"]["Message"] == f"{operation} of Lambda is not implemented in this version of Martlet"
            return False
        return True

    def new(self, **more):
        """A request that creates a function."""
        name = lab.unique("walk")
        self.made.append(name)
        return {"FunctionName": name, "Runtime": self.python, "Role": ROLE, "Handler": "lambda_function.handler",
                "Code": {"ZipFile": make_zip({"lambda_function.py": ECHO})}} | more

    def function(self, **more):
        request = self.new(**more)
        self.call("CreateFunction", request)
        return request["FunctionName"]

    def versions(self, name, count=1):
        """Publishes so many versions."""
        for number in range(count):
            self.call("UpdateFunctionConfiguration", {"FunctionName": name, "Description": f"version {number + 1}"})
            self.call("PublishVersion", {"FunctionName": name})
        return str(count)

    def other_runtime(self):
        return next(name for name in self.server.runtimes() if name.startswith("python") and name != self.python)

    def image(self):
        return SAMPLES["ImageUri"]

    def file_system(self):
        """One that the server was granted."""
        return {"Arn": f"arn:aws:elasticfilesystem:{REGION}:{ACCOUNT}:access-point/fsap-0123456789abcdef0", "LocalMountPath": "/mnt/told"}

    def forget(self):
        for name in self.made:
            try:
                self.client.delete_function(FunctionName=name)
            except ClientError:
                pass
        self.made = []


class Walk:
    """The walk over one operation."""

    def __init__(self, world, operation, recipe):
        self.world, self.operation, self.recipe = world, operation, recipe
        self.shape = MODEL.operation_model(operation).input_shape
        self.row = Row(operation, True)
        self.given = With(None)

    def run(self):
        base = self.recipe.arrange(self.world)
        self.base = base, self.observed(base, self.world.call(self.operation, base))
        for path, shape in members(self.shape) if self.shape else ():
            try:
                self.member(path, shape)
            except AssertionError as problem:
                raise AssertionError(f"{self.operation} {dotted(path)}: {problem}") from problem
        return self.row

    def observed(self, request, answer):
        """What is shown after a call: its answer, and what the reader shows."""
        reader = self.recipe.reader
        if not reader:
            return [answer]
        asked = {}
        for name in MODEL.operation_model(reader).input_shape.members:
            value = request.get(name, found(answer, name))
            required = name in MODEL.operation_model(reader).input_shape.required_members
            if name in request or required:
                asked[name] = value
        return [answer, self.world.call(reader, asked)]

    def tried(self, path, shape, request):
        """The request in which the leaf has a value that shows."""
        self.given = With(None)
        for length in range(len(path), 0, -1):
            given = self.recipe.values.get(dotted(path[:length]))
            if given is None or path[length - 1] == "[]":
                continue
            if callable(given):
                try:
                    given = given(self.world, request)
                except ClientError as error:
                    # What it needs is not built, so the member cannot be either.
                    assert NOT_BUILT.search(str(error)), error
                    continue
            if not isinstance(given, With):
                given = With(given)
            top = placed(self.shape.members[path[0]], path[1:length], given.value)
            if leaf({path[0]: top}, path) is None:
                top = merged(self.plain(path, shape), top)
            self.given = given
            request = without(request, given.without) | given.more
            break
        else:
            top = self.plain(path, shape)
        if isinstance(request.get(path[0]), dict) and isinstance(top, dict):
            top = request[path[0]] | top
        return request | {path[0]: top}

    def plain(self, path, shape):
        return placed(self.shape.members[path[0]], path[1:], sample(shape, [step for step in path if step != "[]"][-1]))

    def member(self, path, shape):
        name = dotted(path)
        request = self.recipe.arrange(self.world)
        required = path[0] in request and leaf(request, path) is not None
        self.given = With(None)
        if name == "Marker":
            request["Marker"] = self.world.call(self.operation, request | {"MaxItems": 1}).get("NextMarker")
        elif not required:
            request = self.tried(path, shape, request)
        if self.refused(path, request):
            self.row.refused.append(name)
            return
        self.row.applied.append(name)
        if proof := self.recipe.proofs.get(name):
            proof(self.world)
        elif not self.steers(path):
            self.told(path, required, few(shape))
        if few(shape):
            self.choices(path, shape, request)

    def refused(self, path, request):
        """Whether the server refuses the request for this member, by its name, as something that is not built."""
        try:
            self.kept = request, self.world.call(self.operation, request)
            return False
        except ClientError as error:
            message = error.response["Error"]["Message"]
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            steps = [step for step in path if step != "[]"]
            names = any(step.lower() in message.lower() for step in steps)
            assert NOT_BUILT.search(message) and names and status == 400, f"neither applied nor refused by name: {message}"
            return True

    def steers(self, path):
        """Members that say which thing is meant: proven by naming none, and pages by their order."""
        world, name = self.world, path[-1]
        if len(path) > 1 or name in self.recipe.new:
            return False
        request = self.recipe.arrange(world)
        if name == "RevisionId":
            world.refuses(self.operation, request | {name: "00000000-0000-0000-0000-000000000000"}, 412, "PreconditionFailedException")
        elif name == "MaxItems" or name == "Marker":
            output = MODEL.operation_model(self.operation).output_shape
            items = next(member for member, inner in output.members.items() if inner.type_name == "list")
            first = world.call(self.operation, request | {"MaxItems": 1})
            assert len(first[items]) == 1 and first.get("NextMarker"), f"no page of one: {first}"
            second = world.call(self.operation, request | {"MaxItems": 1, "Marker": first["NextMarker"]})
            assert len(second[items]) == 1 and second[items] != first[items], f"the second page: {second}"
        elif name in NOTHING:
            world.refuses(self.operation, request | {name: NOTHING[name]}, 404, "ResourceNotFoundException")
        else:
            return False
        return True

    def told(self, path, required, choice):
        """The value shows afterwards, and would not have without the member."""
        request, answer = self.kept
        value, name = leaf(request, path), [step for step in path if step != "[]"][-1]
        seen = self.observed(request, answer)
        assert shows(seen, name, value), f"{value!r} was taken and does not show: {seen}"
        # A choice that is there anyway says nothing; the other ones are tried too.
        assert required or choice or not shows(self.base[1], name, value), f"{value!r} shows without being sent; try another value"

    def choices(self, path, shape, request):
        """Each value of an enumeration is applied or refused too, where the rest of the request lets it.

        A member of which nothing is taken but what is there without it counts as refused.
        """
        applied = not shows(self.base[1], path[-1], leaf(request, path)) or dotted(path) in self.recipe.proofs
        for choice in shape.enum:
            if f"{dotted(path)}={choice}" in self.recipe.apart:
                applied = True
                continue
            if choice == leaf(request, path):
                continue
            fresh = without(self.recipe.arrange(self.world), self.given.without)
            kept = {name: value for name, value in request.items() if name not in fresh or name == path[0]}
            changed = fresh | kept | self.given.more | {path[0]: replaced(request[path[0]], path[1:], choice)}
            try:
                answer = self.world.call(self.operation, changed)
            except ClientError as error:
                message = error.response["Error"]["Message"]
                named = path[-1].lower() in message.lower() or choice.lower() in message.lower()
                assert NOT_BUILT.search(message) and named, f"{choice} is neither applied nor refused by name: {message}"
                self.row.refused.append(f"{dotted(path)}={choice}")
                continue
            applied = True
            if dotted(path) not in self.recipe.proofs:
                seen = self.observed(changed, answer)
                assert shows(seen, path[-1], choice), f"{choice} was taken and does not show: {seen}"
        if not applied:
            self.row.applied.remove(dotted(path))
            self.row.refused = [one for one in self.row.refused if not one.startswith(f"{dotted(path)}=")] + [dotted(path)]
