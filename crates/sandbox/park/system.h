/* The kernel, without a C library: what is done in the memory of another process must not touch that library's state. */
#ifndef SYSTEM_H
#define SYSTEM_H

#include <stddef.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ || __SIZEOF_POINTER__ != 8
#error "messages and structures are written for 64-bit little-endian machines"
#endif

#if defined(__x86_64__)
enum call {
    SYS_READ = 0,
    SYS_WRITE = 1,
    SYS_CLOSE = 3,
    SYS_RT_SIGPROCMASK = 14,
    SYS_MADVISE = 28,
    SYS_SENDTO = 44,
    SYS_RECVMSG = 47,
    SYS_CLONE = 56,
    SYS_WAIT4 = 61,
    SYS_FCNTL = 72,
    SYS_GETCWD = 79,
    SYS_CHDIR = 80,
    SYS_SETSID = 112,
    SYS_CAPSET = 126,
    SYS_PRCTL = 157,
    SYS_EXIT_GROUP = 231,
    SYS_OPENAT = 257,
    SYS_PPOLL = 271,
    SYS_DUP3 = 292,
    SYS_SETNS = 308,
    SYS_RSEQ = 334,
};
#define RSEQ_SIGNATURE 0x53053053u

static inline long call6(enum call number, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"((long)number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static inline char *thread_pointer(void) {
    char *pointer;
    __asm__("mov %%fs:0, %0" : "=r"(pointer));
    return pointer;
}

#elif defined(__aarch64__)
enum call {
    SYS_GETCWD = 17,
    SYS_DUP3 = 24,
    SYS_FCNTL = 25,
    SYS_CHDIR = 49,
    SYS_OPENAT = 56,
    SYS_CLOSE = 57,
    SYS_READ = 63,
    SYS_WRITE = 64,
    SYS_PPOLL = 73,
    SYS_CAPSET = 91,
    SYS_EXIT_GROUP = 94,
    SYS_RT_SIGPROCMASK = 135,
    SYS_SETSID = 157,
    SYS_PRCTL = 167,
    SYS_SENDTO = 206,
    SYS_RECVMSG = 212,
    SYS_CLONE = 220,
    SYS_MADVISE = 233,
    SYS_WAIT4 = 260,
    SYS_SETNS = 268,
    SYS_RSEQ = 293,
};
#define RSEQ_SIGNATURE 0xd428bc00u

static inline long call6(enum call number, long a, long b, long c, long d, long e, long f) {
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc #0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}

static inline char *thread_pointer(void) {
    char *pointer;
    __asm__("mrs %0, tpidr_el0" : "=r"(pointer));
    return pointer;
}

#else
#error "only x86_64 and aarch64 are known here"
#endif

/* The same numbers everywhere. */
#define SYS_LANDLOCK_CREATE_RULESET ((enum call)444)
#define SYS_LANDLOCK_ADD_RULE ((enum call)445)
#define SYS_LANDLOCK_RESTRICT_SELF ((enum call)446)

#define call1(number, a) call6(number, (long)(a), 0, 0, 0, 0, 0)
#define call2(number, a, b) call6(number, (long)(a), (long)(b), 0, 0, 0, 0)
#define call3(number, a, b, c) call6(number, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define call4(number, a, b, c, d) call6(number, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

#define EINTR 4
#define ECHILD 10
#define EAGAIN 11
#define EINVAL 22
#define ENOSYS 38

#define AT_FDCWD (-100)
#define O_CLOEXEC 02000000
#define O_PATH 010000000
#define F_DUPFD_CLOEXEC 1030
#define MADV_DOFORK 11
#define MSG_CTRUNC 0x8
#define MSG_TRUNC 0x20
#define MSG_NOSIGNAL 0x4000
#define MSG_CMSG_CLOEXEC 0x40000000
#define SOL_SOCKET 1
#define SCM_RIGHTS 1
#define SIG_SETMASK 2
#define CLONE_VM 0x100
#define CLONE_VFORK 0x4000
#define WAIT_ALL 0x40000000 /* __WALL: children that signal nothing at their end, too */
#define PR_SET_DUMPABLE 4
#define PR_CAPBSET_DROP 24
#define CAPABILITY_VERSION 0x20080522
#define RSEQ_BYTES 32

static inline _Noreturn void exit_now(int code) {
    for (;;) call1(SYS_EXIT_GROUP, code);
}

static inline void close_fd(int fd) {
    /* Linux has closed it even where it says otherwise. */
    (void)call1(SYS_CLOSE, fd);
}

static inline void wait_for(long pid) {
    while (call4(SYS_WAIT4, pid, 0, WAIT_ALL, 0) == -EINTR) {
    }
}

/* 1 when there is something to read within so many nanoseconds, 0 when there is not, or a negative errno. */
static inline int can_be_read(int fd, long nanoseconds) {
    struct {
        int fd;
        short events, found;
    } what = {fd, 1, 0};
    long time[2] = {0, nanoseconds};
    return (int)call6(SYS_PPOLL, (long)&what, 1, (long)time, 0, 8, 0);
}

static inline uint64_t set_signal_mask(uint64_t mask) {
    uint64_t before = 0;
    (void)call4(SYS_RT_SIGPROCMASK, SIG_SETMASK, &mask, &before, sizeof mask);
    return before;
}

#endif
