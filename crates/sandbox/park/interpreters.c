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

static PyObject *python_wait(PyObject *self, PyObject *argument) {
    (void)self;
    long socket = PyLong_AsLong(argument);
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromLong(martlet_wait((int)socket));
}

static struct python_method python_methods[] = {
    {"park", python_park, METH_O, "park(socket) -> 0 in each child, a negative errno in the parent"},
    {"probe", python_probe, METH_NOARGS, "probe() -> 0 or a negative errno"},
    {"wait", python_wait, METH_O, "wait(socket) -> 1 once it can be read, 0 when that takes more than a few milliseconds"},
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
extern int napi_create_reference(napi_env, napi_value, uint32_t, void **) __attribute__((weak));
extern int napi_get_reference_value(napi_env, void *, napi_value *) __attribute__((weak));
extern int napi_open_handle_scope(napi_env, void **) __attribute__((weak));
extern int napi_close_handle_scope(napi_env, void *) __attribute__((weak));
extern int napi_get_global(napi_env, napi_value *) __attribute__((weak));
extern int napi_make_callback(napi_env, void *, napi_value, napi_value, size_t, const napi_value *, napi_value *)
    __attribute__((weak));
extern int uv_loop_fork(struct uv_loop_s *) __attribute__((weak));
extern int uv_loop_alive(const struct uv_loop_s *) __attribute__((weak));
extern int uv_backend_fd(const struct uv_loop_s *) __attribute__((weak));
extern size_t uv_handle_size(int) __attribute__((weak));
extern int uv_prepare_init(struct uv_loop_s *, void *) __attribute__((weak));
extern int uv_prepare_start(void *, void (*)(void *)) __attribute__((weak));
extern void uv_ref(void *) __attribute__((weak));
extern void uv_unref(void *) __attribute__((weak));

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

static napi_value node_wait(napi_env env, napi_callback_info info) {
    return node_status(env, martlet_wait(node_argument(env, info, -1)));
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

/*
 * A child's event loop must never end: Node then waits for threads of its platform, to which V8 still hands work after
 * every large garbage collection, and which a child does not have. So a handle keeps the loop alive, and looks, each time
 * before the loop waits, whether it is the only one that does.
 */
static struct {
    napi_env env;
    struct uv_loop_s *loop;
    /* Called with 0 when nothing else is left to do, and with 1 when that has not changed anything. */
    void *callback;
    char handle[512] __attribute__((aligned(16)));
} idle;

enum { UV_PREPARE = 9 };

static int has_work(void) {
    uv_unref(idle.handle);
    int alive = uv_loop_alive(idle.loop);
    uv_ref(idle.handle);
    if (alive) return 1;
    /* Tasks of V8 do not count as work to the loop, but wake it. What it waits on is readable then. */
    return can_be_read(uv_backend_fd(idle.loop), 0) > 0;
}

static void tell_idle(int again) {
    void *scope = NULL;
    napi_value global = NULL, callback = NULL, argument = NULL, result = NULL;
    if (napi_open_handle_scope(idle.env, &scope) != 0) martlet_leave(70);
    if (napi_get_global(idle.env, &global) != 0 || napi_create_int32(idle.env, again, &argument) != 0 ||
        napi_get_reference_value(idle.env, idle.callback, &callback) != 0)
        martlet_leave(70);
    (void)napi_make_callback(idle.env, NULL, global, callback, 1, &argument, &result);
    (void)napi_close_handle_scope(idle.env, scope);
}

static void before_waiting(void *handle) {
    (void)handle;
    if (has_work()) return;
    tell_idle(0);
    if (has_work()) return;
    tell_idle(1);
}

static int keep_loop(napi_env env, struct uv_loop_s *loop, napi_value callback) {
    if (!uv_handle_size || uv_handle_size(UV_PREPARE) > sizeof idle.handle) return -ENOSYS;
    idle.env = env;
    idle.loop = loop;
    if (napi_create_reference(env, callback, 1, &idle.callback) != 0) return -EINVAL;
    int status = uv_prepare_init(loop, idle.handle);
    return status ? status : uv_prepare_start(idle.handle, before_waiting);
}

/* loopFork(idle), to be called first thing in a child: the event loop's own descriptors are still those of the template.
   From here on `idle` is called where the loop would have ended. */
static napi_value node_loop_fork(napi_env env, napi_callback_info info) {
    size_t count = 1;
    napi_value callback = NULL;
    struct uv_loop_s *loop = NULL;
    if (!uv_loop_fork || napi_get_uv_event_loop(env, &loop) != 0) return node_status(env, -ENOSYS);
    if (napi_get_cb_info(env, info, &count, &callback, NULL, NULL) != 0 || count < 1)
        return node_status(env, -EINVAL);
    int status = uv_loop_fork(loop);
    return node_status(env, status ? status : keep_loop(env, loop, callback));
}

EXPORT napi_value napi_register_module_v1(napi_env env, napi_value exports) {
    static const struct {
        const char *name;
        napi_callback function;
    } functions[] = {
        {"park", node_park},         {"probe", node_probe}, {"wait", node_wait}, {"keepHeap", node_keep_heap},
        {"loopFork", node_loop_fork}, {"leave", node_leave}, {"activeRequests", node_active_requests}};
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        napi_value function = NULL;
        const char *name = functions[i].name;
        if (napi_create_function(env, name, (size_t)-1, functions[i].function, NULL, &function) != 0) return NULL;
        if (napi_set_named_property(env, exports, name, function) != 0) return NULL;
    }
    return exports;
}
