'use strict';
// Runs first in each worker thread of a forked environment, and ends it when nothing is left that it waits for. Were its
// event loop to end by itself, Node would wait for threads of its platform, which a forked process does not have.

const { isMainThread } = require('worker_threads');
const path = require('path');

const LOOK_MS = 5;

if (!isMainThread) {
  const holder = { exports: {} };
  process.dlopen(holder, path.join(__dirname, 'park.so'));
  // The timer itself is one of what keeps the thread alive.
  const timer = setInterval(() => {
    if (holder.exports.activeRequests() > 0 || process.getActiveResourcesInfo().length > 1) return;
    process.emit('beforeExit', process.exitCode || 0);
    if (process.getActiveResourcesInfo().length > 1) return;
    clearInterval(timer);
    process.exit();
  }, LOOK_MS);
}
