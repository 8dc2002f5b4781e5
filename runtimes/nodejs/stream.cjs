'use strict';
// Responses that handlers write piece by piece (awslambda.streamifyResponse).

const fs = require('fs');
const { Writable } = require('stream');

const ERROR = 19, BEGIN = 22, DATA = 23, END = 24;
/** Longest payload of one frame; the server takes four times as much. */
const PIECE_BYTES = 64 * 1024;
/** What the socket takes at once for certain when a response begins. What is more may have to wait for the reader. */
const AT_ONCE_BYTES = 64 * 1024;
const HTTP_TYPE = 'application/vnd.awslambda.http-integration-response';
const HTTP_DELIMITER = Buffer.alloc(8);

class InvalidStreamingOperation extends Error {
  constructor(message) {
    super(message);
    this.name = 'Runtime.InvalidStreamingOperation';
  }
}

/** What the handler writes to. Its bytes leave as frames, in the order in which they were written. */
class ResponseStream extends Writable {
  #sequence;
  #descriptor;
  #frame;
  #contentType;
  #begun = false;
  #quick = 0;
  #writing = false;
  #failed = false;
  #onQuiet;

  constructor(sequence, highWaterMark, { descriptor, frame }) {
    super(highWaterMark === undefined ? {} : { highWaterMark });
    this.#sequence = sequence;
    this.#descriptor = descriptor;
    this.#frame = frame;
  }

  setContentType(type) {
    if (this.#begun || this.writableLength > 0) {
      throw new InvalidStreamingOperation('Cannot set content-type, too late.');
    }
    this.#contentType = String(type);
  }

  write(chunk, encoding, callback) {
    const data = typeof chunk === 'string' || chunk instanceof Uint8Array ? chunk : JSON.stringify(chunk);
    const before = this._onBeforeFirstWrite;
    if (typeof before !== 'function') return super.write(data, encoding, callback);
    this._onBeforeFirstWrite = undefined;
    // One frame for the beginning and what comes first.
    this.cork();
    before((first) => super.write(first));
    const room = super.write(data, encoding, callback);
    this.uncork();
    return room;
  }

  end(chunk, encoding, callback) {
    // A chunk given here does not pass through `write`.
    if (typeof this._onBeforeFirstWrite === 'function') {
      const last = chunk === undefined || chunk === null || typeof chunk === 'function' ? Buffer.alloc(0) : chunk;
      this.write(last, typeof encoding === 'string' ? encoding : undefined);
      return super.end([chunk, encoding, callback].find((given) => typeof given === 'function'));
    }
    return super.end(chunk, encoding, callback);
  }

  _write(chunk, _encoding, callback) {
    this.#send(this.#frames(chunk), callback);
  }

  _writev(chunks, callback) {
    this.#send(this.#frames(Buffer.concat(chunks.map(({ chunk }) => chunk))), callback);
  }

  /** Says that the response is complete. */
  complete() {
    const begin = this.#begun ? [] : [this.#begin(undefined)];
    this.#finally(Buffer.concat([...begin, this.#frame(END, this.#sequence)]));
  }

  /** Says in place of what is still to come that the handler has failed; `then` runs once that is written. */
  fail(meta, document, then) {
    this.#failed = true;
    const frame = this.#frame(ERROR, this.#sequence, meta, document);
    const say = () => {
      this.#finally(frame);
      then();
    };
    // A frame that is half written has to be whole first.
    if (this.#writing) this.#onQuiet = say;
    else say();
  }

  #begin(payload) {
    this.#begun = true;
    const meta = this.#contentType === undefined ? undefined : JSON.stringify({ contentType: this.#contentType });
    return this.#frame(BEGIN, this.#sequence, meta, payload);
  }

  #frames(bytes) {
    const frames = [];
    for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
      const piece = bytes.subarray(at, at + PIECE_BYTES);
      frames.push(this.#begun ? this.#frame(DATA, this.#sequence, undefined, piece) : this.#begin(piece));
    }
    return frames.length === 1 ? frames[0] : Buffer.concat(frames);
  }

  /** Writes at once what will not have to wait, and the rest aside, so that the function goes on meanwhile. */
  #send(frames, callback) {
    if (this.#failed) return callback();
    this.#quick += frames.length;
    if (this.#quick <= AT_ONCE_BYTES) {
      this.#finally(frames);
      return callback();
    }
    const rest = (left) => {
      this.#writing = true;
      fs.write(this.#descriptor, left, 0, left.length, null, (error, count) => {
        if (!error && count < left.length) return rest(left.subarray(count));
        this.#writing = false;
        if (this.#onQuiet) return this.#onQuiet();
        callback(error);
      });
    };
    rest(frames);
  }

  #finally(bytes) {
    for (let at = 0; at < bytes.length;) at += fs.writeSync(this.#descriptor, bytes, at);
  }
}

/** Makes `stream` the body of an HTTP response of which `prelude` tells status, headers and cookies. */
function http(stream, prelude) {
  stream.setContentType(HTTP_TYPE);
  const head = JSON.stringify(prelude);
  stream._onBeforeFirstWrite = (write) => {
    write(head);
    write(HTTP_DELIMITER);
  };
  return stream;
}

/**
 * Runs `handler` on a response stream. `onDone` hears of its end: nothing when the handler is through and all was written,
 * otherwise what went wrong.
 */
function run(handler, event, stream, context, onDone) {
  let over = false;
  const done = (error) => {
    if (over) return;
    over = true;
    onDone(error);
  };
  const failed = (error) => done({ error: error === undefined || error === null ? 'handled' : error });
  const unfinished = () => failed(new InvalidStreamingOperation('Response stream is not finished.'));
  stream.on('error', failed);
  stream.on('close', () => {
    if (!stream.writableFinished) unfinished();
  });
  let result;
  try {
    result = handler.call(undefined, event, stream, context);
  } catch (error) {
    failed(error);
    return unfinished;
  }
  if (!result || typeof result.then !== 'function') {
    failed(new InvalidStreamingOperation('Streaming does not support non-async handlers.'));
    return unfinished;
  }
  result.then((value) => {
    if (value !== undefined && !over) console.warn('Streaming handlers ignore return values.');
    if (stream.writableFinished) done();
    else stream.once('finish', () => done());
  }, failed);
  // For when nothing is left that could end it.
  return unfinished;
}

module.exports = { ResponseStream, http, run };
