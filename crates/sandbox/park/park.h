/* What an interpreter calls. A function that answers does so with 0 or a negative errno. */
#ifndef PARK_H
#define PARK_H

#define EXPORT __attribute__((visibility("default")))

/*
 * Serves the requests that arrive on `socket` (Unix, SEQPACKET). Returns 0 in each process that was asked for: its
 * descriptors are in place and `socket` is closed there. Does not return in the template, except with an error of the socket;
 * ends the process with code 0 when the other end is closed. The calling process should have no other thread: the children
 * will not.
 */
EXPORT int martlet_park(int socket);

/*
 * Forks once for nothing, so that libraries with handlers for it (pthread_atfork) show what is left of their threads.
 */
EXPORT int martlet_probe(void);

/* Undoes MADV_DONTFORK everywhere, with which V8 marks its heap: a child would find it missing. */
EXPORT int martlet_keep_heap(void);

/* Waits for a few milliseconds: 1 as soon as `socket` can be read, 0 when it could not. */
EXPORT int martlet_wait(int socket);

/* Ends the process at once. A forked interpreter that took the ordinary way out would wait for threads that it never had. */
EXPORT void martlet_leave(int code);

#endif
