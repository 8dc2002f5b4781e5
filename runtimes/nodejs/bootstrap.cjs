'use strict';
// The bootstrap of the managed Node runtimes: loads the handler, then answers events.
//
// It runs on Node 18 and later and speaks with the server as ../PROTOCOL.md says. Waiting for the next event blocks the
// whole thread: between two events an environment is frozen as far as the function can tell, and a plain read is
// the quickest way to be woken. Everything the function left running goes on when the next event is there.

const fs = require('fs');
const path = require('path');
const util = require('util');

const CONTROL_FD = 3, PARK_FD = 5;
const INVOKE = 1, RESTORE = 2, FUNCTION = 3;
const READY = 16, INIT_ERROR = 17, RESPONSE = 18, ERROR = 19, TOO_LARGE = 20, PARKED = 21;
const REHEARSALS = 10;
const RESPONSE_LIMIT = 6 * 1024 * 1024 + 100;
const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const HIGH_WATER_MARK = Symbol.for('aws.lambda.runtime.handler.highWaterMark');
/** What only functions need that stream their responses. */
const streams = () => require('./stream.cjs');

// --- Frames ---------------------------------------------------------------------------------------------------------

const receiveBuffer = Buffer.allocUnsafeSlow(64 * 1024);

function readSome(buffer, offset) {
  const count = fs.readSync(CONTROL_FD, buffer, offset, buffer.length - offset, null);
  // The server is gone, and with it everybody who could be told.
  if (count === 0) process.exit(0);
  return count;
}

/** Blocks until the next event is there: its sequence, its meta, and the event as text. */
function receive(kind = INVOKE) {
  let buffer = receiveBuffer;
  let filled = readSome(buffer, 0);
  while (filled < 16) filled += readSome(buffer, filled);
  if (buffer[0] !== kind) process.exit(0);
  const start = 16 + buffer.readUInt32BE(8);
  const total = start + buffer.readUInt32BE(12);
  if (total > buffer.length) {
    const whole = Buffer.allocUnsafeSlow(total);
    buffer.copy(whole, 0, 0, filled);
    buffer = whole;
  }
  while (filled < total) filled += readSome(buffer, filled);
  return {
    sequence: buffer.readUInt32BE(4),
    meta: JSON.parse(buffer.toString('utf8', 16, start)),
    text: buffer.toString('utf8', start, total),
  };
}

function send(kind, sequence, meta, payload) {
  writeAll(CONTROL_FD, frameOf(kind, sequence, meta, payload));
}

function frameOf(kind, sequence, meta, payload) {
  const metaBytes = meta === undefined ? 0 : Buffer.byteLength(meta);
  const payloadBytes = payload === undefined ? 0 : Buffer.byteLength(payload);
  const frame = Buffer.allocUnsafe(16 + metaBytes + payloadBytes);
  frame.writeUInt32BE(kind * 0x1000000, 0);
  frame.writeUInt32BE(sequence, 4);
  frame.writeUInt32BE(metaBytes, 8);
  frame.writeUInt32BE(payloadBytes, 12);
  if (metaBytes) frame.write(meta, 16);
  if (typeof payload === 'string') frame.write(payload, 16 + metaBytes);
  else if (payloadBytes) frame.set(payload, 16 + metaBytes);
  return frame;
}

function writeAll(descriptor, bytes) {
  for (let written = 0; written < bytes.length;) written += fs.writeSync(descriptor, bytes, written);
}

// --- Log ------------------------------------------------------------------------------------------------------------

const LEVELS = ['TRACE', 'DEBUG', 'INFO', 'WARN', 'ERROR', 'FATAL'];
const environment = process.env;
const LOG_VARIABLE = '_LAMBDA_TELEMETRY_LOG_FD';
const logDescriptor = Number(environment[LOG_VARIABLE] || 1);
delete environment[LOG_VARIABLE];
const templateOf = environment._MARTLET_TEMPLATE;
delete environment._MARTLET_TEMPLATE;
let logsJson = false;

let requestId;

const TRACE_VARIABLE = '_X_AMZN_TRACE_ID';
/** The trace id of the event at hand. */
let trace;

/**
 * Shows the trace id among the environment variables. It is not kept there: the C library never gives back a value that
 * it was given, 150 bytes an event.
 */
function showTrace() {
  delete environment[TRACE_VARIABLE];
  process.env = new Proxy(environment, {
    get: (target, name) => (name === TRACE_VARIABLE ? trace : target[name]),
    has: (target, name) => (name === TRACE_VARIABLE ? trace !== undefined : name in target),
    set(target, name, value) {
      if (name === TRACE_VARIABLE) trace = String(value);
      else target[name] = value;
      return true;
    },
    deleteProperty(target, name) {
      if (name === TRACE_VARIABLE) trace = undefined;
      return delete target[name];
    },
    ownKeys: (target) => Reflect.ownKeys(target).concat(trace === undefined ? [] : TRACE_VARIABLE),
    getOwnPropertyDescriptor(target, name) {
      if (name !== TRACE_VARIABLE) return Reflect.getOwnPropertyDescriptor(target, name);
      return trace === undefined ? undefined : { value: trace, writable: true, enumerable: true, configurable: true };
    },
  });
}

/** Writes one record, however many lines it has. */
function writeRecord(level, at, text) {
  const length = Buffer.byteLength(text);
  const frame = Buffer.allocUnsafe(16 + length);
  frame.writeUInt32BE(0xa55a0000 + ((level + 1) << 2 | (logsJson ? 2 : 3)), 0);
  frame.writeUInt32BE(length, 4);
  frame.writeBigUInt64BE(BigInt(at.getTime()) * 1000n, 8);
  frame.write(text, 16);
  writeAll(logDescriptor, frame);
}

function log(level, values) {
  const at = new Date();
  const text = logsJson
    ? jsonRecord(level, at, values)
    : `${at.toISOString()}\t${requestId}\t${LEVELS[level]}\t${util.format(...values)}\n`;
  writeRecord(level, at, text);
}

function errorFields(error) {
  return {
    errorType: (error.constructor && error.constructor.name) || 'UnknownError',
    errorMessage: error.message,
    stackTrace: typeof error.stack === 'string' ? error.stack.split('\n') : [],
  };
}

function jsonRecord(level, at, values) {
  const record = { timestamp: at.toISOString(), level: LEVELS[level], requestId };
  if (values.length === 1) {
    try {
      record.message = values[0];
      return JSON.stringify(record, (_, value) =>
        value instanceof Error ? Object.assign(errorFields(value), value) : value);
    } catch {
      record.message = util.format(values[0]);
    }
  } else {
    record.message = util.format(...values);
    const error = values.find((value) => value instanceof Error);
    if (error) Object.assign(record, errorFields(error));
  }
  return JSON.stringify(record);
}

function patchConsole() {
  logsJson = (environment.AWS_LAMBDA_LOG_FORMAT || '').toUpperCase() === 'JSON';
  const wanted = LEVELS.indexOf((environment.AWS_LAMBDA_LOG_LEVEL || '').toUpperCase());
  const writer = (level) => (level < wanted && level < 5 ? () => {} : (...values) => log(level, values));
  console.trace = writer(0);
  console.debug = writer(1);
  console.info = console.log = writer(2);
  console.warn = writer(3);
  console.error = writer(4);
  console.fatal = writer(5);
}

/** Makes writes to stdout and stderr finish before they return, so that none is left behind when an answer is sent. */
function blockOutput() {
  for (const name of ['stdout', 'stderr']) {
    const original = Object.getOwnPropertyDescriptor(process, name);
    let stream;
    Object.defineProperty(process, name, {
      configurable: true,
      enumerable: true,
      get() {
        if (stream === undefined) {
          stream = original.get.call(process);
          if (stream._handle && stream._handle.setBlocking) stream._handle.setBlocking(true);
        }
        return stream;
      },
      set(value) {
        stream = value;
      },
    });
  }
}

// --- Errors ---------------------------------------------------------------------------------------------------------

function errorClass(name) {
  const type = class extends Error {};
  Object.defineProperty(type, 'name', { value: name });
  type.prototype.name = `Runtime.${name}`;
  return type;
}

const ImportModuleError = errorClass('ImportModuleError');
const HandlerNotFound = errorClass('HandlerNotFound');
const MalformedHandlerName = errorClass('MalformedHandlerName');
const UserCodeSyntaxError = errorClass('UserCodeSyntaxError');
const MalformedStreamingHandler = errorClass('MalformedStreamingHandler');
const UnhandledPromiseRejection = errorClass('UnhandledPromiseRejection');

const printable = (text) => String(text).replace(/\x7F/g, '%7F');

function looksLikeError(value) {
  return util.types.isNativeError(value) ||
    (value && ['name', 'message', 'stack'].every((key) => value[key] && typeof value[key] === 'string'));
}

/** The error document that the caller gets for a thrown value of any kind. */
function describe(value) {
  try {
    if (looksLikeError(value)) {
      return {
        errorType: printable(value.name),
        errorMessage: printable(value.message),
        trace: printable(value.stack).split('\n'),
      };
    }
    return { errorType: typeof value, errorMessage: value.toString(), trace: [] };
  } catch {
    return { errorType: 'handled', errorMessage: 'the error has no message, name and stack that can be read' };
  }
}

/** Logs an error: its enumerable properties as JSON behind a title in text, the error itself in JSON. */
function logError(title, value) {
  const error = value instanceof Error ? value : new Error(value);
  if (logsJson) return console.error(error);
  let text;
  try {
    text = JSON.stringify(error, (_, item) => {
      if (!(item instanceof Error)) return item;
      const shown = { errorType: item.name, errorMessage: item.message, code: item.code, ...item };
      if (typeof item.stack === 'string') shown.stack = item.stack.split('\n');
      return shown;
    });
  } catch {
    text = JSON.stringify(describe(error));
  }
  console.error(title, '\t' + text);
}

function sendError(kind, sequence, value, fatal, errorType) {
  send(kind, sequence, ...errorParts(value, fatal, errorType));
}

/** The meta and the payload of a frame that tells an error. */
function errorParts(value, fatal, errorType) {
  const document = describe(value);
  let payload = JSON.stringify(document);
  if (Buffer.byteLength(payload) > RESPONSE_LIMIT) {
    payload = JSON.stringify({ ...document, errorMessage: document.errorMessage.slice(0, 10000), trace: [] });
  }
  return [JSON.stringify({ errorType: errorType || document.errorType, fatal }), payload];
}

/** What an error that nobody caught does: it answers whatever waits for an answer, and ends the process. */
let onFatal = (error, code) => {
  sendError(INIT_ERROR, 0, error, true);
  process.exit(code);
};

function catchTheUncaught() {
  process.on('uncaughtException', (error) => {
    logError('Uncaught Exception', error);
    onFatal(error, 129);
  });
  process.on('unhandledRejection', (reason, promise) => {
    const error = new UnhandledPromiseRejection(reason);
    error.reason = reason;
    error.promise = promise;
    logError('Unhandled Promise Rejection', error);
    onFatal(error, 128);
  });
}

// --- Handler --------------------------------------------------------------------------------------------------------

function requireIfThere(file) {
  return fs.existsSync(file) ? require(file) : undefined;
}

function importIfThere(file) {
  return fs.existsSync(file) ? import(require('url').pathToFileURL(file).href) : undefined;
}

/** Whether the nearest package.json above `file` says that its .js files are ES modules. */
function isModulePackage(file) {
  for (let folder = path.dirname(file); path.basename(folder) !== 'node_modules'; folder = path.dirname(folder)) {
    const description = path.join(folder, 'package.json');
    if (fs.existsSync(description)) {
      try {
        return JSON.parse(fs.readFileSync(description, 'utf8')).type === 'module';
      } catch (error) {
        console.warn(`${description} cannot be read and is ignored`, error);
        return false;
      }
    }
    if (folder === path.dirname(folder)) break;
  }
  return false;
}

async function loadModule(root, folder, name) {
  const file = path.resolve(root, folder, name);
  let loaded = requireIfThere(file);
  if (loaded) return loaded;
  const script = `${file}.js`;
  if (fs.existsSync(script)) {
    loaded = isModulePackage(script) ? await importIfThere(script) : require(script);
    if (loaded) return loaded;
  }
  loaded = await importIfThere(`${file}.mjs`) || requireIfThere(`${file}.cjs`);
  if (loaded) return loaded;
  return require(require.resolve(name, { paths: [root, folder] }));
}

async function load(root, name) {
  if (name.includes('..')) {
    throw new MalformedHandlerName(`'${name}' is not a valid handler name: it may not lead out of the package with '..'`);
  }
  const last = path.basename(name);
  const folder = name.slice(0, name.length - last.length);
  const dot = last.indexOf('.');
  if (dot < 0) throw new MalformedHandlerName('Bad handler');
  let loaded;
  try {
    loaded = await loadModule(root, folder, last.slice(0, dot));
  } catch (error) {
    if (error instanceof SyntaxError) throw new UserCodeSyntaxError(error);
    if (error && error.code === 'MODULE_NOT_FOUND') throw new ImportModuleError(error);
    throw error;
  }
  const handler = last.slice(dot + 1).split('.').reduce((value, key) => value && value[key], loaded);
  if (!handler) throw new HandlerNotFound(`${name} is undefined or not exported`);
  if (typeof handler !== 'function') throw new HandlerNotFound(`${name} is not a function`);
  if (handler[STREAMING] && handler[STREAMING] !== 'response') {
    throw new MalformedStreamingHandler(`${name} streams something else than its response: ${handler[STREAMING]}`);
  }
  if (handler[STREAMING]) streams();
  return handler;
}

function offerGlobals() {
  globalThis.awslambda = {
    streamifyResponse(handler, options) {
      handler[STREAMING] = 'response';
      handler[HIGH_WATER_MARK] = options && options.highWaterMark;
      return handler;
    },
    HttpResponseStream: class HttpResponseStream {
      static from(stream, prelude) {
        return streams().http(stream, prelude);
      }
    },
  };
}

// --- Events ---------------------------------------------------------------------------------------------------------

function parseClientContext(text) {
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`Cannot parse ClientContext as json: ${error}`);
  }
}

/** What runs when the event loop has nothing left to do. */
let onIdle = () => {};

/** What contexts have of the environment, and repeat for as long as it lives. */
function readFixed() {
  return {
    functionVersion: environment.AWS_LAMBDA_FUNCTION_VERSION,
    functionName: environment.AWS_LAMBDA_FUNCTION_NAME,
    memoryLimitInMB: environment.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: environment.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: environment.AWS_LAMBDA_LOG_STREAM_NAME,
  };
}

class Invocation {
  constructor(handler, fixed) {
    const { sequence, meta, text } = receive();
    this.handler = handler;
    this.fixed = fixed;
    this.sequence = sequence;
    this.meta = meta;
    this.text = text;
    this.answered = false;
    this.waits = true;
    // Set as soon as one of the callbacks was called: only the first call counts.
    this.settled = false;
  }

  run() {
    requestId = this.meta.id;
    trace = this.meta.trace || undefined;
    onFatal = (error, code) => {
      if (!this.answered) sendError(ERROR, this.sequence, error, true);
      process.exit(code);
    };
    onIdle = () => this.respond(null);
    const fail = (error) => this.settle(() => this.fail(error));
    const succeed = (result) => this.settle(() => this.respondOrFail(result));
    const done = (error, result) => (isAbsent(error) ? succeed(result) : fail(error));
    const callback = (error, result) => {
      if (!isAbsent(error)) return fail(error);
      this.settle(() => {
        if (!this.waits) this.respondOrFail(result);
        else onIdle = () => setImmediate(() => this.respondOrFail(result));
      });
    };
    try {
      const context = this.context({ succeed, fail: (error) => fail(isAbsent(error) ? 'handled' : error), done });
      const result = this.handler.call(undefined, JSON.parse(this.text), context, callback);
      this.text = undefined;
      if (result && typeof result.then === 'function') result.then(succeed, context.fail);
    } catch (error) {
      callback(isAbsent(error) ? 'handled' : error);
    }
  }

  context(ways) {
    const invocation = this;
    const { meta } = this;
    return {
      get callbackWaitsForEmptyEventLoop() {
        return invocation.waits;
      },
      set callbackWaitsForEmptyEventLoop(value) {
        invocation.waits = value;
      },
      ...{ succeed: ways.succeed, fail: ways.fail, done: ways.done },
      ...this.fixed,
      clientContext: parseClientContext(meta.client),
      identity: undefined,
      invokedFunctionArn: meta.arn,
      awsRequestId: meta.id,
      tenantId: meta.tenant,
      getRemainingTimeInMillis() {
        return meta.deadline - Date.now();
      },
    };
  }

  settle(action) {
    if (this.settled) return;
    this.settled = true;
    onIdle = () => {};
    action();
  }

  respondOrFail(result) {
    let text;
    try {
      text = JSON.stringify(result === undefined ? null : result);
    } catch {
      return this.fail(new Error('Unable to stringify response body'));
    }
    // A function or a symbol has no JSON text at all.
    this.respond(text === undefined ? null : result, text);
  }

  respond(result, text = JSON.stringify(result)) {
    if (this.answered) return;
    this.answered = true;
    onIdle = () => {};
    if (Buffer.byteLength(text) > RESPONSE_LIMIT) send(TOO_LARGE, this.sequence);
    else send(RESPONSE, this.sequence, undefined, text);
    this.next();
  }

  fail(error) {
    if (this.answered) return;
    this.answered = true;
    onIdle = () => {};
    logError('Invoke Error', error);
    sendError(ERROR, this.sequence, error, undefined);
    this.next();
  }

  next() {
    // Not from here: what the function has ready to run comes first.
    setImmediate(() => new this.constructor(this.handler, this.fixed).run());
  }
}

/** The same for a handler that writes its response piece by piece. */
class StreamingInvocation extends Invocation {
  run() {
    requestId = this.meta.id;
    trace = this.meta.trace || undefined;
    const { ResponseStream, run } = streams();
    const ways = { descriptor: CONTROL_FD, frame: frameOf };
    const stream = new ResponseStream(this.sequence, this.handler[HIGH_WATER_MARK], ways);
    const end = (error, fatal, then) => {
      if (this.answered) return then();
      this.answered = true;
      onIdle = () => {};
      if (error === undefined) {
        stream.complete();
        return then();
      }
      stream.fail(...errorParts(error, fatal), then);
    };
    onFatal = (error, code) => end(error, true, () => process.exit(code));
    const done = (failed) => {
      if (failed && !this.answered) logError('Invoke Error', failed.error);
      end(failed && failed.error, undefined, () => this.next());
    };
    let event, context;
    try {
      event = JSON.parse(this.text);
      context = this.context({});
    } catch (error) {
      return done({ error });
    }
    this.text = undefined;
    onIdle = run(this.handler, event, stream, context, done);
  }
}

function isAbsent(value) {
  return value === undefined || value === null;
}

// --- Start ----------------------------------------------------------------------------------------------------------

/**
 * Parks this process. Returns in each environment that is forked from it, and here if that cannot be; what it returns is
 * the meta of `ready`. Error types and exit codes are those of Lambda's own runtimes.
 */
async function becomeTemplate(template, { runBefore, runAfter }) {
  await attempt(runBefore, 'Runtime.BeforeSnapshotError', 64);
  const unforkable = await template.obstacle();
  if (unforkable === undefined) {
    // Compiled once, here, and not in each child.
    for (let times = 0; times < REHEARSALS; times += 1) await rehearse();
    send(PARKED, 0);
    if (template.park(PARK_FD) < 0) process.exit(1);
    Object.assign(environment, receive(RESTORE).meta.env);
    template.differ();
  } else {
    fs.closeSync(PARK_FD);
  }
  await attempt(runAfter, 'Runtime.AfterRestoreError', 65);
  return unforkable === undefined ? undefined : JSON.stringify({ unforkable });
}

async function attempt(hooks, errorType, code) {
  try {
    await hooks();
  } catch (error) {
    logError('Snapshot Hook Error', error);
    sendError(INIT_ERROR, 0, error, true, errorType);
    process.exit(code);
  }
}

/**
 * Goes once through what each event needs, without an event. A process that was just forked copies every page that it touches
 * first: better before somebody waits than after.
 */
async function rehearse() {
  const before = [requestId, trace, onFatal, onIdle];
  const rehearsal = Object.assign(Object.create(Invocation.prototype), {
    handler: async (event) => event,
    fixed: readFixed(),
    sequence: 0,
    meta: { id: '', arn: '', deadline: 0, trace: '' },
    text: '{"of":[1,2.5,"text",null,true]}',
    answered: false,
    waits: true,
    settled: false,
  });
  await new Promise((done) => {
    Object.assign(rehearsal, { respond: done, fail: done });
    rehearsal.run();
  });
  [requestId, trace, onFatal, onIdle] = before;
}

/** Waits to be told which function this interpreter is for. Its files are there from then on. */
function learnFunction() {
  send(READY, 0);
  const { env } = receive(FUNCTION).meta;
  for (const name of Object.keys(environment)) if (!(name in env)) delete environment[name];
  Object.assign(environment, env);
  delete environment[LOG_VARIABLE];
  process.chdir(environment.LAMBDA_TASK_ROOT || '/var/task');
}

async function main() {
  blockOutput();
  catchTheUncaught();
  process.on('beforeExit', () => onIdle());
  offerGlobals();
  const ways = templateOf ? require('./template.cjs') : undefined;
  const template = ways && await ways.Template.begin();
  if (templateOf === 'runtime') learnFunction();
  showTrace();
  patchConsole();
  globalThis.martlet = ways ? ways.hooks : { beforeSnapshot() {}, afterRestore() {} };
  const handler = await load(environment.LAMBDA_TASK_ROOT || '/var/task', environment._HANDLER || '');
  send(READY, 0, template && await becomeTemplate(template, ways));
  if (template && template.isEarly(CONTROL_FD)) await rehearse();
  const Kind = handler[STREAMING] ? StreamingInvocation : Invocation;
  setImmediate(() => new Kind(handler, readFixed()).run());
}

main().catch((error) => {
  logError('Uncaught Exception', error);
  onFatal(error, 129);
});
