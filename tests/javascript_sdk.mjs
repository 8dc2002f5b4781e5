// Drives the server with the JavaScript SDK; run by test_javascript_sdk.py, which sets endpoint and credentials.
// Prints one JSON document: what each step saw.
import { readFileSync } from "node:fs";
import { CloudWatchLogsClient, FilterLogEventsCommand } from "@aws-sdk/client-cloudwatch-logs";
import {
  CreateFunctionCommand, DeleteFunctionCommand, GetFunctionCommand, InvokeCommand, LambdaClient, ListVersionsByFunctionCommand,
  PublishVersionCommand, UpdateFunctionCodeCommand, UpdateFunctionConfigurationCommand, paginateListFunctions,
  waitUntilFunctionActiveV2, waitUntilFunctionUpdatedV2,
} from "@aws-sdk/client-lambda";

const [name, runtime, zipFile, otherZip] = process.argv.slice(2);
const lambda = new LambdaClient({ maxAttempts: 1 });
const logs = new CloudWatchLogsClient({ maxAttempts: 1 });
const text = (bytes) => new TextDecoder().decode(bytes);
const seen = {};

const failure = async (command) => {
  try {
    await lambda.send(command);
    return null;
  } catch (error) {
    return { name: error.name, status: error.$metadata?.httpStatusCode, requestId: error.$metadata?.requestId };
  }
};

seen.missing = await failure(new GetFunctionCommand({ FunctionName: name }));
seen.created = await lambda.send(new CreateFunctionCommand({
  FunctionName: name, Runtime: runtime, Handler: "index.handler", Role: "arn:aws:iam::000000000000:role/x",
  Code: { ZipFile: readFileSync(zipFile) }, Environment: { Variables: { GREETING: "hi" } }, Timeout: 10,
}));
seen.active = (await waitUntilFunctionActiveV2({ client: lambda, maxWaitTime: 20, minDelay: 1, maxDelay: 1 }, { FunctionName: name })).state;
seen.twice = await failure(new CreateFunctionCommand({
  FunctionName: name, Runtime: runtime, Handler: "index.handler", Role: "arn:aws:iam::000000000000:role/x", Code: { ZipFile: readFileSync(zipFile) },
}));
const answer = await lambda.send(new InvokeCommand({ FunctionName: name, Payload: JSON.stringify({ n: 1 }), LogType: "Tail" }));
seen.answer = { payload: JSON.parse(text(answer.Payload)), version: answer.ExecutedVersion, log: Buffer.from(answer.LogResult, "base64").toString() };
const failed = await lambda.send(new InvokeCommand({ FunctionName: name, Payload: JSON.stringify({ fail: true }) }));
seen.failed = { error: failed.FunctionError, payload: JSON.parse(text(failed.Payload)) };
seen.event = (await lambda.send(new InvokeCommand({ FunctionName: name, InvocationType: "Event", Payload: "{}" }))).StatusCode;
seen.dryRun = (await lambda.send(new InvokeCommand({ FunctionName: name, InvocationType: "DryRun" }))).StatusCode;
seen.invalid = await failure(new UpdateFunctionConfigurationCommand({ FunctionName: name, MemorySize: 1 }));
await lambda.send(new UpdateFunctionCodeCommand({ FunctionName: name, ZipFile: readFileSync(otherZip) }));
seen.updated = (await waitUntilFunctionUpdatedV2({ client: lambda, maxWaitTime: 20, minDelay: 1, maxDelay: 1 }, { FunctionName: name })).state;
seen.published = (await lambda.send(new PublishVersionCommand({ FunctionName: name }))).Version;
seen.versions = (await lambda.send(new ListVersionsByFunctionCommand({ FunctionName: name }))).Versions.map((v) => v.Version);
seen.other = text((await lambda.send(new InvokeCommand({ FunctionName: name, Qualifier: seen.published }))).Payload);
seen.code = (await (await fetch((await lambda.send(new GetFunctionCommand({ FunctionName: name }))).Code.Location)).arrayBuffer()).byteLength;
seen.listed = [];
for await (const page of paginateListFunctions({ client: lambda, pageSize: 1 }, {})) {
  seen.listed.push(...page.Functions.map((f) => f.FunctionName));
}
seen.logged = (await logs.send(new FilterLogEventsCommand({ logGroupName: `/aws/lambda/${name}`, filterPattern: "greeted" }))).events.length;
await lambda.send(new DeleteFunctionCommand({ FunctionName: name }));
seen.gone = await failure(new InvokeCommand({ FunctionName: name }));
console.log(JSON.stringify(seen));
