'use strict';
// How a Node interpreter becomes a template: what keeps it from being forked, the fork, and what differs after it.
//
// The bootstrap loads this when it is told to become a template, before the function's code. What has to be replaced for
// the sake of the children is replaced then, so that it does not matter how early that code takes hold of it.

const fs = require('fs');
const os = require('os');
const path = require('path');

// How long requests that init code has left to run, and threads that a library ends at a fork, may take.
const PATIENCE_MS = 50;
const PRIVATE_FOLDERS = ['/tmp', '/dev/shm'];

const list = (folder) => fs.readdirSync(folder);
const threads = () => list('/proc/self/task');
const pause = () => new Promise((resolve) => setTimeout(resolve, 1));

/** What each number stands for. */
function openDescriptors() {
  const found = new Map();
  for (const number of list('/proc/self/fd')) {
    try {
      found.set(number, fs.readlinkSync(`/proc/self/fd/${number}`));
    } catch {
      // What the listing itself was read from.
    }
  }
  return found;
}

/** Waits until `reached` holds, for as long as patience goes: whether it does. */
async function holds(reached) {
  for (const end = Date.now() + PATIENCE_MS; !reached(); await pause()) {
    if (Date.now() > end) return false;
  }
  return true;
}

// --- What has to differ between children ----------------------------------------------------------------------------

/** A generator (xoshiro128**) in place of the one inside V8, whose state would be the same in all children. */
function replaceMathRandom(crypto) {
  const state = new Uint32Array(4);
  const next = () => {
    const s1 = state[1];
    const five = Math.imul(s1, 5);
    const result = Math.imul((five << 7) | (five >>> 25), 9);
    state[2] ^= state[0];
    state[3] ^= s1;
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= s1 << 9;
    state[3] = (state[3] << 11) | (state[3] >>> 21);
    return result >>> 0;
  };
  const seed = () => {
    do crypto.randomFillSync(state);
    while (!(state[0] | state[1] | state[2] | state[3]));
  };
  seed();
  define(Math, 'random', () => ((next() >>> 5) * 0x4000000 + (next() >>> 6)) / 0x20000000000000);
  return seed;
}

/** Random values come from a store that is filled for many calls at a time, and would be the same in all children. */
function replaceCachedRandom(crypto) {
  const { randomUUID, randomInt } = crypto;
  const uncached = () => randomUUID({ disableEntropyCache: true });
  define(crypto, 'randomUUID', (options) => (options === undefined ? uncached() : randomUUID({
    ...options, disableEntropyCache: true })));
  const web = crypto.webcrypto && Object.getPrototypeOf(crypto.webcrypto);
  if (web && web.randomUUID) define(web, 'randomUUID', uncached);
  let drawn = false;
  define(crypto, 'randomInt', (...values) => {
    drawn = true;
    return randomInt(...values);
  });
  return () => {
    // No option leaves this store out; 6 kB hold 1024 values.
    for (let count = 0; drawn && count < 1024; count++) randomInt(2);
  };
}

/** Sandboxes that can be forked are refused the socket that tells about interfaces; there is but one. */
function answerInterfaces() {
  const { networkInterfaces } = os;
  define(os, 'networkInterfaces', () => {
    try {
      return networkInterfaces();
    } catch {
      const lo = { netmask: '255.0.0.0', family: 'IPv4', mac: '00:00:00:00:00:00', internal: true };
      return { lo: [{ address: '127.0.0.1', ...lo, cidr: '127.0.0.1/8' }] };
    }
  });
}

/**
 * A worker of a child ends through a way of its own: Node's would wait for threads that a child does not have. Returns what
 * puts that into force.
 */
function watchWorkers() {
  const workers = require('worker_threads');
  let forked = false;
  const watcher = ['--require', path.join(__dirname, 'worker.cjs')];
  class Worker extends workers.Worker {
    constructor(file, options = {}) {
      super(file, forked ? { ...options, execArgv: [...(options.execArgv || []), ...watcher] } : options);
    }
  }
  define(workers, 'Worker', Worker);
  return () => { forked = true; };
}

function define(object, name, value) {
  Object.defineProperty(value, 'name', { value: name });
  Object.defineProperty(object, name, { value, writable: true, configurable: true, enumerable: object !== Math });
}

// --- The template ---------------------------------------------------------------------------------------------------

class Template {
  /** To be called before the function's code is loaded. */
  static async begin() {
    const template = new Template();
    const crypto = require('crypto');
    template.steps = [replaceMathRandom(crypto), replaceCachedRandom(crypto), watchWorkers()];
    answerInterfaces();
    require('module').syncBuiltinESMExports();
    // The threads of libuv come with the first such request, and do no harm: a child gets its own.
    await fs.promises.stat('/');
    template.threads = new Set(threads());
    template.descriptors = openDescriptors();
    template.empty = PRIVATE_FOLDERS.filter((folder) => fs.existsSync(folder) && !list(folder).length);
    return template;
  }

  /** Why this process cannot be forked, in one sentence; undefined when it can. Nothing has run between the last look and
   * the return. */
  async obstacle() {
    try {
      // What init code has put off comes first.
      await pause();
      const soon = this.load() || await this.requests() || await this.running();
      if (soon) return soon;
      // Out of the loop's handling of what it polls for, which a child begins anew.
      await new Promise(setImmediate);
      return this.busy() || this.children() || this.opened() || this.written();
    } catch (error) {
      return `looking for what a fork would break failed: ${error.message}`;
    }
  }

  load() {
    const holder = { exports: {} };
    try {
      process.dlopen(holder, path.join(__dirname, 'park.so'));
    } catch (error) {
      return `the library that forks cannot be loaded: ${error.message}`;
    }
    this.library = holder.exports;
    return undefined;
  }

  async requests() {
    await holds(() => this.library.activeRequests() <= 0);
    return this.busy();
  }

  busy() {
    if (this.library.activeRequests() <= 0) return undefined;
    const kinds = process.getActiveResourcesInfo ? process.getActiveResourcesInfo().join(', ') : 'unknown';
    return `init code has left requests running, which a fork would lose (${kinds})`;
  }

  async running() {
    const status = this.library.probe();
    if (status < 0) return `a fork is refused: ${require('util').getSystemErrorName(status)}`;
    if (await holds(() => threads().length <= this.threads.size)) return undefined;
    const names = threads().filter((task) => !this.threads.has(task))
      .map((task) => fs.readFileSync(`/proc/self/task/${task}/comm`, 'utf8').trim());
    return `init code or a library has started threads, which a fork would lose: ${names.join(', ')}`;
  }

  children() {
    const own = list('/proc').filter((name) => name > '0' && name < ':').some((name) => {
      try {
        const stat = fs.readFileSync(`/proc/${name}/stat`, 'latin1');
        return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === process.pid;
      } catch {
        // Ended meanwhile.
        return false;
      }
    });
    return own ? 'init code has started processes, which would not be there after a fork' : undefined;
  }

  opened() {
    for (const [number, target] of openDescriptors()) {
      if (!this.descriptors.has(number) && !/^\/(dev|proc|sys)\//.test(target)) {
        return `init code has left something open, which a fork would share (descriptor ${number}, ${target})`;
      }
    }
    return undefined;
  }

  written() {
    for (const folder of this.empty) {
      const found = list(folder);
      if (found.length) {
        const names = found.slice(0, 3).join(', ');
        return `init code has left files in ${folder}, which each environment has for itself: ${names}`;
      }
    }
    return undefined;
  }

  /** Returns 0 in each child, and a negative errno in this process when the server is out of reach. */
  park(socket) {
    collectGarbage();
    waitForSleep();
    // Nothing may run after this but the fork: what V8 maps from here on would be missing in a child.
    const kept = this.library.keepHeap();
    if (kept < 0) return kept;
    const status = this.library.park(socket);
    this.forked = status === 0;
    if (this.forked) this.settle();
    return status;
  }

  /** Whether this process is a fork that was made ahead of need: no event comes soon after it is ready. */
  isEarly(control) {
    return this.forked && !this.library.wait(control);
  }

  /** The first steps of a child. */
  settle() {
    if (this.library.loopFork((again) => this.idle(again)) !== 0) this.library.leave(70);
    const pid = Number(fs.readlinkSync('/proc/self'));
    Object.defineProperty(process, 'pid', { value: pid, enumerable: true, configurable: true });
    require('module').syncBuiltinESMExports();
    this.endProperly();
  }

  /** Every way out of a child must end it: Node's own would wait for threads of the platform, which a fork has lost. */
  endProperly() {
    const leave = (code) => this.library.leave(Number(code) || 0);
    process.reallyExit = leave;
    // An error that nobody catches takes a way of its own, but comes by here.
    const last = (code) => {
      const all = process.rawListeners('exit');
      for (const later of all.slice(all.indexOf(last) + 1)) {
        try {
          later.call(process, code);
        } catch {
          // The others have a right to run, and nobody is left to be told.
        }
      }
      leave(process.exitCode === undefined ? code : process.exitCode);
    };
    process.on('exit', last);
  }

  /** The event loop has nothing left to do; `again` says that this was so after the listeners had been told, too. */
  idle(again) {
    try {
      if (again) process.exit();
      else process.emit('beforeExit', process.exitCode || 0);
    } catch (error) {
      // From here it would get lost.
      setImmediate(() => { throw error; });
    }
  }

  /** Makes a child differ from its siblings in all that should be unique, and from its template where it must. */
  differ() {
    for (const step of this.steps) step();
  }
}

/** Waits until no other thread is at work: what it holds would be held forever in a child. */
function waitForSleep() {
  const awake = (task) => {
    const stat = fs.readFileSync(`/proc/self/task/${task}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2)[0] !== 'S';
  };
  const others = () => threads().filter((task) => Number(task) !== process.pid);
  for (const end = Date.now() + PATIENCE_MS; others().some(awake) && Date.now() < end;);
}

/** What is garbage now would be copied by the first collection of each child. */
function collectGarbage() {
  const v8 = require('v8');
  v8.setFlagsFromString('--expose-gc');
  const gc = require('vm').runInNewContext('gc');
  v8.setFlagsFromString('--no-expose-gc');
  if (typeof gc === 'function') gc();
}

// --- Hooks ----------------------------------------------------------------------------------------------------------

const before = [];
const after = [];

/** What a function registers with; both may be asynchronous. */
const hooks = {
  /** Has `hook` called before the template is parked; the last registered comes first. */
  beforeSnapshot(hook) {
    before.unshift(hook);
  },
  /** Has `hook` called in each environment that was forked; the first registered comes first. */
  afterRestore(hook) {
    after.push(hook);
  },
};

async function run(calls) {
  for (const call of calls) await call();
}

module.exports = { Template, hooks, runBefore: () => run(before), runAfter: () => run(after) };
