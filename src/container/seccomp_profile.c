/*
 * Which system calls a container may make: the list to read, and to change. Linked into the
 * build-time generator (seccomp_gen.c) and the unit test only; see seccomp_profile.h.
 *
 * What it is measured against (both Apache-2.0; read, not copied): Docker's default,
 * github.com/moby/profiles seccomp/default.json, with its rules for a container that has Docker's
 * default capabilities; and Podman's, github.com/containers/common pkg/seccomp/seccomp.json. Where
 * the two differ, the application profile takes the tighter of them unless the row says why not.
 *
 * Refusals: EPERM for what is known and not for guests. ENOSYS for what this table does not know,
 * i.e. is newer than it, so that programs take their fallback for older kernels; and for a few that
 * programs probe for and do without. Nothing is logged.
 */
#include "container/seccomp_profile.h"

#include <stddef.h>

#define BOTH(action)                                                                               \
	{                                                                                          \
		action, action                                                                     \
	}
#define SYSTEM_ONLY(refuse)                                                                        \
	{                                                                                          \
		refuse, 0                                                                          \
	}

/*
 * AF_VSOCK reaches the hypervisor and the host past every network namespace. AF_ALG is the kernel's
 * crypto, which programs do without; CVE-2026-31431 wrote to the shared page cache through it. The
 * audit protocol (NETLINK_AUDIT, 9) has no namespaces: systemd and PAM misbehave in a container
 * that offers it. The errno is what a kernel built without the family says.
 *
 * A 32-bit program can hide the family from any filter in socketcall()'s memory. Refusing that call
 * breaks most 32-bit programs (Docker tried and took it back in moby/moby#52547); an AppArmor or
 * SELinux rule covers it where the host has one.
 */
static const struct seccomp_tests socket_families = {
	.n = 3,
	.test =
		{
			{EAFNOSUPPORT, 1, {{0, ~0U, 38 /* AF_ALG */}}},
			{EAFNOSUPPORT, 1, {{0, ~0U, 40 /* AF_VSOCK */}}},
			{EAFNOSUPPORT, 2, {{0, ~0U, 16 /* AF_NETLINK */}, {2, ~0U, 9}}},
		},
};

/* No new namespaces: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. CLONE_NEWTIME
 * shares its bit with the exit signal and exists in clone3() and unshare() only. */
static const struct seccomp_tests clone_plain = {
	.n = 1,
	.test = {{0, 1, {{0, 0x7e020000, 0}}}},
};

/* Linux, 32-bit Linux, each with UNAME26; 0xffffffff asks only. Others switch off protections
 * (READ_IMPLIES_EXEC, MMAP_PAGE_ZERO) or wake old code. */
static const struct seccomp_tests personalities = {
	.n = 5,
	.test =
		{
			{0, 1, {{0, ~0U, 0}}},
			{0, 1, {{0, ~0U, 0x0008}}},
			{0, 1, {{0, ~0U, 0x20000}}},
			{0, 1, {{0, ~0U, 0x20008}}},
			{0, 1, {{0, ~0U, 0xffffffff}}},
		},
};

const struct seccomp_row seccomp_rows[] = {
	/* Files and directories */
	{BOTH(0),
	 "access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 "
	 "faccessat faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 "
	 "fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr "
	 "fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 "
	 "futimesat "
	 "getcwd getdents getdents64 getxattr getxattrat ioctl lchown lchown32 lgetxattr link "
	 "linkat listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat "
	 "lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 "
	 "pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readdir readlink "
	 "readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir sendfile "
	 "sendfile64 setxattr setxattrat splice stat stat64 statfs statfs64 statx symlink "
	 "symlinkat "
	 "sync sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime "
	 "utimensat "
	 "utimensat_time64 utimes write writev cachestat file_getattr file_setattr"},
	/* Reading one's own mount table. */
	{BOTH(0), "listmount statmount"},
	/* Moves pages, not bytes, into pipes: seldom used, often part of an exploit (Podman: EPERM,
	 * Docker: allowed). An init system's container runs whatever a machine runs. */
	{SYSTEM_ONLY(EPERM), "vmsplice"},

	/* Waiting and telling */
	{BOTH(0),
	 "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait "
	 "epoll_wait_old eventfd eventfd2 inotify_add_watch inotify_init inotify_init1 "
	 "inotify_rm_watch fanotify_mark _newselect pause pipe pipe2 poll ppoll ppoll_time64 "
	 "pselect6 pselect6_time64 select signalfd signalfd4 timerfd_create timerfd_gettime "
	 "timerfd_gettime64 timerfd_settime timerfd_settime64 io_cancel io_destroy io_getevents "
	 "io_pgetevents io_pgetevents_time64 io_setup io_submit"},
	{SYSTEM_ONLY(EPERM), "fanotify_init"},

	/* Memory */
	{BOTH(0),
	 "brk madvise membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap "
	 "mmap2 "
	 "mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect "
	 "process_mrelease remap_file_pages map_shadow_stack"},
	/* Placement on NUMA nodes; Docker asks for CAP_SYS_NICE. */
	{SYSTEM_ONLY(EPERM), "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"},
	{BOTH(EPERM), "migrate_pages move_pages"},

	/* Processes, threads, identity */
	{BOTH(0),
	 "alarm arch_prctl capget capset execve execveat exit exit_group fork futex futex_requeue "
	 "futex_time64 futex_wait futex_waitv futex_wake get_robust_list get_thread_area getcpu "
	 "getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer "
	 "getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid "
	 "getresuid32 getrlimit getrusage getsid gettid getuid getuid32 ioprio_get ioprio_set kill "
	 "modify_ldt nanosleep pidfd_open pidfd_send_signal prctl prlimit64 restart_syscall rseq "
	 "rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend "
	 "rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max "
	 "sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler "
	 "sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr "
	 "sched_setparam sched_setscheduler sched_yield set_robust_list set_thread_area "
	 "set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups "
	 "setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 "
	 "setresuid setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 sigaltstack "
	 "sigprocmask sigreturn sysinfo tgkill time times tkill ugetrlimit uname vfork wait4 "
	 "waitid "
	 "waitpid chroot"},
	{SYSTEM_ONLY(EPERM), "clone", {&clone_plain, NULL}},
	/* Its flags are in memory, out of a filter's reach: glibc falls back to clone(). */
	{SYSTEM_ONLY(ENOSYS), "clone3"},
	{BOTH(EPERM), "personality", {&personalities, &personalities}},
	/* Debugging one's own processes; the kernel checks whose (safe since Linux 4.8). */
	{BOTH(0), "ptrace process_vm_readv process_vm_writev"},
	{SYSTEM_ONLY(EPERM), "kcmp pidfd_getfd process_madvise"},
	/* The kernel puts uprobe trampolines into the program that is being traced. */
	{BOTH(0), "uretprobe uprobe"},

	/* Clocks: setting them is the host's, and adjtimex() without CAP_SYS_TIME only reads. */
	{BOTH(0),
	 "adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime "
	 "clock_gettime64 clock_nanosleep clock_nanosleep_time64 gettimeofday timer_create "
	 "timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime "
	 "timer_settime64"},
	{BOTH(EPERM), "clock_settime clock_settime64 settimeofday stime"},

	/* Sockets and System V, POSIX communication */
	{BOTH(0),
	 "accept accept4 bind connect getpeername getsockname getsockopt ipc listen mq_getsetattr "
	 "mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend "
	 "mq_timedsend_time64 "
	 "mq_unlink msgctl msgget msgrcv msgsnd recv recvfrom recvmmsg recvmmsg_time64 recvmsg "
	 "semctl semget semop semtimedop semtimedop_time64 send sendmmsg sendmsg sendto setsockopt "
	 "shmat shmctl shmdt shmget shutdown socketcall socketpair"},
	{BOTH(0), "socket", {&socket_families, &socket_families}},

	/* Confining oneself further */
	{BOTH(0), "landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp"},
	/* Programs look into /proc/self/attr without these. */
	{SYSTEM_ONLY(ENOSYS), "lsm_get_self_attr lsm_list_modules lsm_set_self_attr"},

	/* What an init system does in namespaces of its own */
	{SYSTEM_ONLY(EPERM),
	 "fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree open_tree_attr "
	 "pivot_root quotactl quotactl_fd setdomainname sethostname setns umount umount2 unshare "
	 "vhangup"},
	/* In a PID namespace it ends that namespace's init: how systemd powers off. */
	{SYSTEM_ONLY(EPERM), "reboot"},
	/* Keyrings belong to the user namespace since Linux 5.3, and systemd gives services theirs.
	 * An application may run without a user namespace, where they are the host user's. */
	{SYSTEM_ONLY(ENOSYS), "add_key keyctl"},
	/* Has the kernel start /sbin/request-key on the host. */
	{BOTH(ENOSYS), "request_key"},

	/* Asynchronous I/O past this filter: every operation of a ring escapes it. Docker removed
	 * it in 2023, programs fall back to epoll. */
	{BOTH(ENOSYS), "io_uring_enter io_uring_register io_uring_setup"},
	/* Programs in the kernel, counters of the whole machine, the kernel's messages. */
	{BOTH(EPERM), "bpf lookup_dcookie perf_event_open syslog"},
	/* Lets a process hold the kernel in the middle of a copy: a stage of many exploits. */
	{BOTH(EPERM), "userfaultfd"},
	/* Opens any file of a file system by number, past the mount tree. */
	{BOTH(EPERM), "open_by_handle_at"},
	/* The machine */
	{BOTH(EPERM),
	 "acct delete_module finit_module init_module ioperm iopl kexec_file_load kexec_load "
	 "pciconfig_iobase pciconfig_read pciconfig_write swapoff swapon"},
	/* Without users since long */
	{BOTH(EPERM),
	 "bdflush create_module get_kernel_syms nfsservctl nice oldfstat oldlstat oldolduname "
	 "oldstat "
	 "olduname query_module sgetmask ssetmask _sysctl sysfs uselib ustat vm86 vm86old"},
	{BOTH(0), NULL},
};

/* include/uapi/asm-generic/unistd.h and arch/x86/entry/syscalls/syscall_{64,32}.tbl, Linux 6.18 */
const struct seccomp_number seccomp_new_numbers[] = {
	{"uretprobe", 335, .only_64 = true},
	{"uprobe", 336, .only_64 = true},
	{"cachestat", 451},
	{"fchmodat2", 452},
	{"map_shadow_stack", 453},
	{"futex_wake", 454},
	{"futex_wait", 455},
	{"futex_requeue", 456},
	{"statmount", 457},
	{"listmount", 458},
	{"lsm_get_self_attr", 459},
	{"lsm_set_self_attr", 460},
	{"lsm_list_modules", 461},
	{"mseal", 462},
	{"setxattrat", 463},
	{"getxattrat", 464},
	{"listxattrat", 465},
	{"removexattrat", 466},
	{"open_tree_attr", 467},
	{"file_getattr", 468},
	{"file_setattr", 469},
	{NULL, 0},
};
