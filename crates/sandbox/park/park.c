/*
 * Parks an initialised interpreter, and makes environments from it by fork.
 *
 * The interpreter that loads this library becomes a template: martlet_park() waits for requests and returns in the
 * processes that they ask for, never in the template. Everything here runs with the rights of the function, so nothing
 * here guards anything: what a process may do is decided by the server, the launcher and the kernel's filters.
 *
 * One birth takes four processes:
 *
 *   template   waits, as a parent of vfork does, until the first helper has ended
 *   helper     shares the template's memory, so it costs no page table. It has one thread and its own working directory,
 *              as the kernel asks of those who join a user namespace, and joins the namespaces of the new environment
 *   midwife    shares that memory too. It is the first to stand in the new pid namespace, so that the process it leaves
 *              behind when it ends is adopted by that namespace's pid 1. It calls the C library's fork()
 *   child      has memory of its own, gives up what joining gave it, takes its descriptors and returns to the interpreter
 *
 * No symbol of a C library is needed to load this; fork() and errno are looked up in what the interpreter brought along.
 */
#include "park.h"
#include "system.h"

enum {
    VERSION = 1,
    MOST_NAMESPACES = 8,
    MOST_DOORS = 8,
    MOST_DESCRIPTORS = 16,
    MOST_RECEIVED = MOST_NAMESPACES + MOST_DOORS + MOST_DESCRIPTORS,
    /* Descriptors are given numbers below this one. */
    FIRST_FREE_NUMBER = 64,
    PATH_BYTES = 4096,
    /* Nanoseconds after which no event is on its way to a process that has said that it is ready. A server that has one sends it
       within a tenth of this. */
    SOON = 3000000,
};

/* Where a birth failed, as the reply says it. */
enum step {
    NONE = 0,
    REQUEST = 1,
    NAMESPACES = 2,
    FORK = 3,
    CGROUP = 4,
    PRIVILEGES = 5,
    LANDLOCK = 6,
    DESCRIPTORS = 7,
};

struct request {
    uint8_t version, namespaces, doors, descriptors;
    uint32_t zero;
    /* Access masks of Landlock; nothing handled means no Landlock. */
    uint64_t handled, scoped, read, everything, in_place;
    int32_t numbers[MOST_DESCRIPTORS];
};

struct reply {
    int32_t status;
    uint32_t step;
};

struct birth {
    int socket;
    struct request request;
    /* What came with the request: namespaces (the user namespace first), doors of cgroups, descriptors. */
    int received[MOST_RECEIVED];
    int count;
    /* Written by the helpers, which share this memory. */
    struct reply failure;
    char directory[PATH_BYTES];
};

extern int fork(void) __attribute__((weak));
extern int *__errno_location(void) __attribute__((weak));
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));

/*
 * spawn(function, argument): runs `function` in a new process that shares this one's memory and stack, and waits until it
 * ends. Returns its pid, or a negative errno.
 *
 * The new process stands on the caller's stack below the caller's frame, and so leaves that frame alone. The function
 * must not return in it. It may return in a process forked from it, since that has a stack of its own; spawn() returns
 * there once more, with the function's value.
 *
 * The process sends no signal when it ends: the interpreter's handler for SIGCHLD has nothing to do with it.
 */
long spawn(long (*function)(struct birth *), struct birth *argument) __attribute__((visibility("hidden")));

#define STRING(x) #x
#define NUMBER(x) STRING(x)
#define SPAWN_FLAGS NUMBER(0x4100) /* CLONE_VM and CLONE_VFORK */
_Static_assert((CLONE_VM | CLONE_VFORK) == 0x4100, "flags in assembly");

#if defined(__x86_64__)
_Static_assert(SYS_CLONE == 56, "number in assembly");
__asm__(".text\n.hidden spawn\n.globl spawn\n.type spawn, @function\nspawn:\n"
        "  push %rbx\n  push %rbp\n  sub $8, %rsp\n"
        "  mov %rdi, %rbx\n  mov %rsi, %rbp\n"
        "  mov $" SPAWN_FLAGS ", %edi\n  xor %esi, %esi\n  xor %edx, %edx\n  xor %r10d, %r10d\n  xor %r8d, %r8d\n"
        "  mov $56, %eax\n  syscall\n"
        "  test %rax, %rax\n  jnz 1f\n"
        "  mov %rbp, %rdi\n  call *%rbx\n"
        "1: add $8, %rsp\n  pop %rbp\n  pop %rbx\n  ret\n.size spawn, .-spawn\n");
#elif defined(__aarch64__)
_Static_assert(SYS_CLONE == 220, "number in assembly");
__asm__(".text\n.hidden spawn\n.globl spawn\n.type spawn, %function\nspawn:\n"
        "  stp x29, x30, [sp, #-32]!\n  mov x29, sp\n  stp x19, x20, [sp, #16]\n"
        "  mov x19, x0\n  mov x20, x1\n"
        "  mov x0, #" SPAWN_FLAGS "\n  mov x1, xzr\n  mov x2, xzr\n  mov x3, xzr\n  mov x4, xzr\n"
        "  mov x8, #220\n  svc #0\n"
        "  cbnz x0, 1f\n"
        "  mov x0, x20\n  blr x19\n"
        "1: ldp x19, x20, [sp, #16]\n  ldp x29, x30, [sp], #32\n  ret\n.size spawn, .-spawn\n");
#endif

/* --- The request -------------------------------------------------------------------------------------------------- */

struct io_vector {
    void *base;
    size_t length;
};

struct message_header {
    void *name;
    uint32_t name_length;
    struct io_vector *vectors;
    size_t vector_count;
    void *control;
    size_t control_length;
    int flags;
};

struct control_header {
    size_t length;
    int level, type;
};

/* The descriptors of one message, whatever else the kernel adds to it. */
static void collect_descriptors(struct birth *birth, const char *control, size_t bytes) {
    size_t at = 0;
    while (bytes - at >= sizeof(struct control_header)) {
        const struct control_header *header = (const void *)(control + at);
        if (header->length < sizeof *header || header->length > bytes - at) return;
        if (header->level == SOL_SOCKET && header->type == SCM_RIGHTS) {
            const int *fds = (const void *)(header + 1);
            size_t count = (header->length - sizeof *header) / sizeof *fds;
            for (size_t i = 0; i < count && birth->count < MOST_RECEIVED; i++)
                birth->received[birth->count++] = fds[i];
        }
        size_t space = (header->length + 7) & ~(size_t)7;
        if (space > bytes - at) return;
        at += space;
    }
}

/* Waits for the next request. Returns its length, a negative errno, or 0 when the other end is closed. What did not fit
   has a length that no request has. */
static long receive(struct birth *birth) {
    /* Room for the descriptors of the largest request, and nothing more: the kernel keeps what does not fit. */
    char control[sizeof(struct control_header) + MOST_RECEIVED * sizeof(int)] __attribute__((aligned(8)));
    struct io_vector vector = {&birth->request, sizeof birth->request};
    struct message_header message;
    long length;
    do {
        message.name = NULL;
        message.name_length = 0;
        message.vectors = &vector;
        message.vector_count = 1;
        message.control = control;
        message.control_length = sizeof control;
        message.flags = 0;
        length = call3(SYS_RECVMSG, birth->socket, &message, MSG_CMSG_CLOEXEC);
    } while (length == -EINTR);
    birth->count = 0;
    if (length < 0) return length;
    collect_descriptors(birth, control, message.control_length);
    if (message.flags & (MSG_TRUNC | MSG_CTRUNC)) return sizeof(struct request) + 1;
    return length;
}

static int is_sound(const struct birth *birth, long length) {
    const struct request *request = &birth->request;
    if (length < (long)offsetof(struct request, numbers)) return 0;
    if (request->version != VERSION || request->zero != 0) return 0;
    if (request->namespaces > MOST_NAMESPACES || request->doors > MOST_DOORS) return 0;
    if (request->descriptors > MOST_DESCRIPTORS) return 0;
    if (length != (long)(offsetof(struct request, numbers) + request->descriptors * sizeof(int32_t))) return 0;
    if (birth->count != request->namespaces + request->doors + request->descriptors) return 0;
    for (int i = 0; i < request->descriptors; i++) {
        int number = request->numbers[i];
        if (number < 0 || number >= FIRST_FREE_NUMBER || number == birth->socket) return 0;
        for (int j = 0; j < i; j++)
            if (request->numbers[j] == number) return 0;
    }
    return 1;
}

static void reply(int socket, long status, enum step step) {
    struct reply reply = {(int32_t)status, step};
    while (call6(SYS_SENDTO, socket, (long)&reply, sizeof reply, MSG_NOSIGNAL, 0, 0) == -EINTR) {
    }
}

static void close_all(const int *fds, int count) {
    for (int i = 0; i < count; i++) close_fd(fds[i]);
}

/* --- The helpers -------------------------------------------------------------------------------------------------- */

static _Noreturn void fail(struct birth *birth, long status, enum step step) {
    birth->failure.status = (int32_t)status;
    birth->failure.step = step;
    exit_now(1);
}

/* Returns in the child only. */
static long midwife(struct birth *birth) {
    int pid = fork();
    if (pid == 0) return 0;
    if (pid < 0) fail(birth, __errno_location ? -*__errno_location() : -EAGAIN, FORK);
    exit_now(0);
}

/* Returns in the child only. */
static long helper(struct birth *birth) {
    for (int i = 0; i < birth->request.namespaces; i++) {
        long status = call2(SYS_SETNS, birth->received[i], 0);
        if (status < 0) fail(birth, status, NAMESPACES);
    }
    long pid = spawn(midwife, birth);
    if (pid == 0) return 0;
    if (pid < 0) fail(birth, pid, FORK);
    wait_for(pid);
    exit_now(0);
}

/* --- The child ---------------------------------------------------------------------------------------------------- */

static long enter_cgroups(const struct birth *birth) {
    const int *doors = birth->received + birth->request.namespaces;
    for (int i = 0; i < birth->request.doors; i++) {
        long written = call3(SYS_WRITE, doors[i], "0", 1);
        if (written < 0) return written;
    }
    return 0;
}

/* What joining a user namespace gave goes, and what the helper lost by it comes back. */
static long become_ordinary(const struct birth *birth) {
    struct {
        uint32_t version;
        int32_t pid;
    } header = {CAPABILITY_VERSION, 0};
    uint32_t none[6];
    for (int i = 0; i < 6; i++) none[i] = 0;
    long status = 0;
    if (birth->request.namespaces > 0) {
        /* The bounding set goes first, by the right that goes next; what is beyond the kernel's last ends it. */
        for (long capability = 0; status == 0; capability++) status = call2(SYS_PRCTL, PR_CAPBSET_DROP, capability);
        if (status != -EINVAL) return status;
    }
    status = call2(SYS_CAPSET, &header, none);
    if (status < 0) return status;
    status = call2(SYS_PRCTL, PR_SET_DUMPABLE, 1);
    if (status < 0) return status;
    status = call1(SYS_SETSID, 0);
    if (status < 0) return status;
    status = call1(SYS_CHDIR, birth->directory);
    if (status < 0) return status;
    /* Sharing memory has cost the helpers, and so this process, the registration that the C library believes in. A kernel
       that refuses only makes it slower. */
    if (&__rseq_size && &__rseq_offset && __rseq_size > 0)
        (void)call4(SYS_RSEQ, thread_pointer() + __rseq_offset, RSEQ_BYTES, 0, RSEQ_SIGNATURE);
    return 0;
}

static long allow(int rules, const char *path, uint64_t access) {
    struct __attribute__((packed)) {
        uint64_t access;
        int32_t parent;
    } rule = {access, (int32_t)call4(SYS_OPENAT, AT_FDCWD, path, O_PATH | O_CLOEXEC, 0)};
    if (rule.parent < 0) return rule.parent;
    long status = call4(SYS_LANDLOCK_ADD_RULE, rules, 1, &rule, 0);
    close_fd(rule.parent);
    return status;
}

/* The rules of every sandbox: the whole tree may be read, little of it written. */
static long restrict_access(const struct request *request) {
    static const char writable[][12] = {"/tmp", "/dev/shm"};
    static const char in_place[][16] = {"/dev/null",   "/dev/zero",    "/dev/full",
                                        "/dev/random", "/dev/urandom", "/proc"};
    if (request->handled == 0) return 0;
    uint64_t attributes[3] = {request->handled, 0, request->scoped};
    long rules = call3(SYS_LANDLOCK_CREATE_RULESET, attributes, sizeof attributes, 0);
    if (rules < 0) return rules;
    long status = allow((int)rules, "/", request->read);
    for (size_t i = 0; status == 0 && i < sizeof writable / sizeof *writable; i++)
        status = allow((int)rules, writable[i], request->everything);
    for (size_t i = 0; status == 0 && i < sizeof in_place / sizeof *in_place; i++)
        status = allow((int)rules, in_place[i], request->in_place);
    if (status == 0) status = call2(SYS_LANDLOCK_RESTRICT_SELF, rules, 0);
    close_fd((int)rules);
    return status;
}

/* Gives the descriptors their numbers; whatever had these is closed. Programs that the environment starts inherit the
   standard streams and nothing else. */
static long place_descriptors(struct birth *birth) {
    const struct request *request = &birth->request;
    int others = request->namespaces + request->doors;
    int *fds = birth->received + others;
    close_all(birth->received, others);
    /* Out of the way first: one may have been received on a number that another is to have. */
    for (int i = 0; i < request->descriptors; i++) {
        long moved = call3(SYS_FCNTL, fds[i], F_DUPFD_CLOEXEC, FIRST_FREE_NUMBER);
        if (moved < 0) return moved;
        close_fd(fds[i]);
        fds[i] = (int)moved;
    }
    for (int i = 0; i < request->descriptors; i++) {
        int number = request->numbers[i];
        long status;
        do status = call3(SYS_DUP3, fds[i], number, number > 2 ? O_CLOEXEC : 0);
        while (status == -EINTR);
        if (status < 0) return status;
        close_fd(fds[i]);
    }
    return 0;
}

/* Makes the child an environment, and says so; or says why not, and ends. */
static void settle(struct birth *birth) {
    enum step step = CGROUP;
    long status = enter_cgroups(birth);
    if (status >= 0) {
        step = PRIVILEGES;
        status = become_ordinary(birth);
    }
    if (status >= 0) {
        step = LANDLOCK;
        status = restrict_access(&birth->request);
    }
    if (status >= 0) {
        step = DESCRIPTORS;
        status = place_descriptors(birth);
    }
    if (status < 0) {
        reply(birth->socket, status, step);
        exit_now(1);
    }
    reply(birth->socket, 0, NONE);
    close_fd(birth->socket);
}

/* --- What the interpreter calls ----------------------------------------------------------------------------------- */

EXPORT int martlet_park(int socket) {
    struct birth birth;
    birth.socket = socket;
    /* The new environment has the same directories, in a mount namespace of its own. */
    if (call2(SYS_GETCWD, birth.directory, sizeof birth.directory) < 0 || birth.directory[0] != '/') {
        birth.directory[0] = '/';
        birth.directory[1] = 0;
    }
    for (;;) {
        long length = receive(&birth);
        if (length == 0) exit_now(0);
        if (length < 0) return (int)length;
        birth.failure.status = 0;
        birth.failure.step = NONE;
        if (!is_sound(&birth, length)) {
            birth.failure.status = -EINVAL;
            birth.failure.step = REQUEST;
        } else if (!fork) {
            birth.failure.status = -ENOSYS;
            birth.failure.step = FORK;
        } else {
            /* A handler that ran in a helper would run in this memory, in a process that is none. */
            uint64_t mask = set_signal_mask(~(uint64_t)0);
            long pid = spawn(helper, &birth);
            if (pid == 0) {
                settle(&birth);
                set_signal_mask(mask);
                return 0;
            }
            if (pid > 0) {
                wait_for(pid);
            } else {
                birth.failure.status = (int32_t)pid;
                birth.failure.step = FORK;
            }
            /* Whoever joins a user namespace marks its memory, which is this process' too, as not to be looked into. */
            (void)call2(SYS_PRCTL, PR_SET_DUMPABLE, 1);
            set_signal_mask(mask);
        }
        close_all(birth.received, birth.count);
        /* A success is for the child to report. */
        if (birth.failure.step != NONE) reply(socket, birth.failure.status, birth.failure.step);
    }
}

EXPORT int martlet_probe(void) {
    if (!fork) return -ENOSYS;
    int pid = fork();
    if (pid == 0) exit_now(0);
    if (pid < 0) return __errno_location ? -*__errno_location() : -EAGAIN;
    wait_for(pid);
    return 0;
}

EXPORT int martlet_wait(int socket) {
    return can_be_read(socket, SOON);
}

EXPORT void martlet_leave(int code) {
    exit_now(code);
}

/* A hexadecimal number; `at` is moved behind it. */
static uintptr_t parse_address(const char *text, int length, int *at) {
    uintptr_t value = 0;
    for (; *at < length; ++*at) {
        char c = text[*at];
        if (c >= '0' && c <= '9') value = value << 4 | (uintptr_t)(c - '0');
        else if (c >= 'a' && c <= 'f') value = value << 4 | (uintptr_t)(c - 'a' + 10);
        else break;
    }
    return value;
}

EXPORT int martlet_keep_heap(void) {
    /* Lines are far shorter, but for the names of files, which may be cut off. */
    enum { LINE = 64 };
    char buffer[4096], line[LINE];
    int filled = 0;
    long maps = call4(SYS_OPENAT, AT_FDCWD, "/proc/self/maps", O_CLOEXEC, 0);
    if (maps < 0) return (int)maps;
    long count;
    while ((count = call3(SYS_READ, maps, buffer, sizeof buffer)) > 0 || count == -EINTR) {
        for (long i = 0; i < count; i++) {
            if (buffer[i] != '\n') {
                if (filled < LINE) line[filled++] = buffer[i];
                continue;
            }
            int at = 0;
            uintptr_t start = parse_address(line, filled, &at);
            if (at < filled && line[at] == '-') {
                at++;
                uintptr_t end = parse_address(line, filled, &at);
                /* Mappings of devices and the like refuse, and are none of the heap. */
                if (end > start) (void)call3(SYS_MADVISE, start, end - start, MADV_DOFORK);
            }
            filled = 0;
        }
    }
    close_fd((int)maps);
    return count < 0 ? (int)count : 0;
}
