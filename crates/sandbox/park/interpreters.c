/*
 * The library as an extension module of Python (`martlet_park`) and as an addon of Node. Both interfaces are stable ones
 * (PEP 384, Node-API), and little of them is needed, so they are declared here: building this asks for no headers. The
 * functions are weak, since each interpreter brings only its own.
 */
#include "park.h"
#include "system.h"

/* --- Python ------------------------------------------------------------------------------------------------------- */

typedef struct python_object PyObject;

struct python_method {
    const char *name;
    PyObject *(*function)(PyObject *, PyObject *);
    int flags;
    const char *documentation;
};

struct python_module {
    intptr_t references;
    void *type;
    void *initialise;
    intptr_t index;
    PyObject *copy;
    const char *name, *documentation;
    intptr_t size;
    struct python_method *methods;
    void *slots, *traverse, *clear, *free;
};

enum { METH_NOARGS = 4, METH_O = 8, PYTHON_API = 1013 };

extern PyObject *PyModule_Create2(struct python_module *, int) __attribute__((weak));
extern long PyLong_AsLong(PyObject *) __attribute__((weak));
extern PyObject *PyLong_FromLong(long) __attribute__((weak));
extern PyObject *PyErr_Occurred(void) __attribute__((weak));
extern void PyOS_BeforeFork(void) __attribute__((weak));
extern void PyOS_AfterFork_Parent(void) __attribute__((weak));
extern void PyOS_AfterFork_Child(void) __attribute__((weak));

static PyObject *python_park(PyObject *self, PyObject *argument) {
    (void)self;
    long socket = PyLong_AsLong(argument);
    if (PyErr_Occurred()) return NULL;
    /* Once for all children: what is taken here is still taken when the next one is forked. */
    PyOS_BeforeFork();
    int status = martlet_park((int)socket);
    if (status == 0) PyOS_AfterFork_Child();
    else PyOS_AfterFork_Parent();
    return PyLong_FromLong(status);
}

static PyObject *python_probe(PyObject *self, PyObject *argument) {
    (void)self;
    (void)argument;
    return PyLong_FromLong(martlet_probe());
}

static struct python_method python_methods[] = {
    {"park", python_park, METH_O, "park(socket) -> 0 in each child, a negative errno in the parent"},
    {"probe", python_probe, METH_NOARGS, "probe() -> 0 or a negative errno"},
    {NULL, NULL, 0, NULL},
};

static struct python_module python_definition = {
    .references = 1, .name = "martlet_park", .size = -1, .methods = python_methods};

EXPORT PyObject *PyInit_martlet_park(void) {
    return PyModule_Create2(&python_definition, PYTHON_API);
}

/* --- Node --------------------------------------------------------------------------------------------------------- */

typedef struct napi_env__ *napi_env;
typedef struct napi_value__ *napi_value;
typedef struct napi_callback_info__ *napi_callback_info;
typedef napi_value (*napi_callback)(napi_env, napi_callback_info);

/* The part of libuv's loop that has kept its place since 1.0. */
struct uv_loop_s {
    void *data;
    unsigned int active_handles;
    void *handle_queue[2];
    union {
        void *unused;
        unsigned int count;
    } active_reqs;
};

extern int napi_create_function(napi_env, const char *, size_t, napi_callback, void *, napi_value *)
    __attribute__((weak));
extern int napi_set_named_property(napi_env, napi_value, const char *, napi_value) __attribute__((weak));
extern int napi_get_cb_info(napi_env, napi_callback_info, size_t *, napi_value *, napi_value *, void **)
    __attribute__((weak));
extern int napi_get_value_int32(napi_env, napi_value, int32_t *) __attribute__((weak));
extern int napi_create_int32(napi_env, int32_t, napi_value *) __attribute__((weak));
extern int napi_get_uv_event_loop(napi_env, struct uv_loop_s **) __attribute__((weak));
extern int napi_add_env_cleanup_hook(napi_env, void (*)(void *), void *) __attribute__((weak));
extern int uv_loop_fork(struct uv_loop_s *) __attribute__((weak));

static napi_value node_status(napi_env env, int status) {
    napi_value value = NULL;
    (void)napi_create_int32(env, status, &value);
    return value;
}

/* The only argument; `otherwise` when it is no number. */
static int node_argument(napi_env env, napi_callback_info info, int otherwise) {
    size_t count = 1;
    napi_value argument = NULL;
    int32_t value = otherwise;
    if (napi_get_cb_info(env, info, &count, &argument, NULL, NULL) != 0 || count < 1) return otherwise;
    return napi_get_value_int32(env, argument, &value) == 0 ? value : otherwise;
}

static napi_value node_park(napi_env env, napi_callback_info info) {
    return node_status(env, martlet_park(node_argument(env, info, -1)));
}

static napi_value node_probe(napi_env env, napi_callback_info info) {
    (void)info;
    return node_status(env, martlet_probe());
}

static napi_value node_keep_heap(napi_env env, napi_callback_info info) {
    (void)info;
    return node_status(env, martlet_keep_heap());
}

static napi_value node_leave(napi_env env, napi_callback_info info) {
    martlet_leave(node_argument(env, info, 1));
    return NULL;
}

/* How many requests the event loop waits for: threads of libuv work on some of them, and a child has no such threads. */
static napi_value node_active_requests(napi_env env, napi_callback_info info) {
    (void)info;
    struct uv_loop_s *loop = NULL;
    if (napi_get_uv_event_loop(env, &loop) != 0) return node_status(env, -ENOSYS);
    return node_status(env, (int)loop->active_reqs.count);
}

static void leave_at_end(void *unused) {
    (void)unused;
    martlet_leave(0);
}

/* To be called first thing in a child: the event loop's own descriptors are still those of the template. Also sees to it
   that the interpreter does not outlive its end, should that ever be reached. */
static napi_value node_loop_fork(napi_env env, napi_callback_info info) {
    (void)info;
    struct uv_loop_s *loop = NULL;
    if (!uv_loop_fork || napi_get_uv_event_loop(env, &loop) != 0) return node_status(env, -ENOSYS);
    if (napi_add_env_cleanup_hook) (void)napi_add_env_cleanup_hook(env, leave_at_end, NULL);
    return node_status(env, uv_loop_fork(loop));
}

EXPORT napi_value napi_register_module_v1(napi_env env, napi_value exports) {
    static const struct {
        const char *name;
        napi_callback function;
    } functions[] = {
        {"park", node_park},         {"probe", node_probe}, {"keepHeap", node_keep_heap},
        {"loopFork", node_loop_fork}, {"leave", node_leave}, {"activeRequests", node_active_requests}};
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        napi_value function = NULL;
        const char *name = functions[i].name;
        if (napi_create_function(env, name, (size_t)-1, functions[i].function, NULL, &function) != 0) return NULL;
        if (napi_set_named_property(env, exports, name, function) != 0) return NULL;
    }
    return exports;
}
