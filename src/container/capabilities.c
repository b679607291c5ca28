/*
 * Capability sets: their names, the two defaults, and how a process that is about to execve() takes
 * one on. See capabilities(7).
 */
#include "container/internal.h"

#include <linux/capability.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CAP(name) (UINT64_C(1) << CAP_##name)

/* The fewest with which ordinary images work; the set that Podman has settled on. */
const uint64_t container_caps_application = CAP(CHOWN) | CAP(DAC_OVERRIDE) | CAP(FOWNER) |
					    CAP(FSETID) | CAP(KILL) | CAP(NET_BIND_SERVICE) |
					    CAP(SETFCAP) | CAP(SETGID) | CAP(SETPCAP) |
					    CAP(SETUID) | CAP(SYS_CHROOT);

/*
 * What a whole operating system needs within its own user namespace. Left out: what acts on the
 * host as a whole even there, or would if a kernel check were wrong (modules, raw I/O, the clock,
 * the kernel log, BPF and perf, wake alarms, MAC policy).
 */
const uint64_t container_caps_system =
	container_caps_application | CAP(DAC_READ_SEARCH) | CAP(LINUX_IMMUTABLE) |
	CAP(NET_BROADCAST) | CAP(NET_ADMIN) | CAP(NET_RAW) | CAP(IPC_LOCK) | CAP(IPC_OWNER) |
	CAP(SYS_PTRACE) | CAP(SYS_ADMIN) | CAP(SYS_BOOT) | CAP(SYS_NICE) | CAP(SYS_RESOURCE) |
	CAP(SYS_TTY_CONFIG) | CAP(MKNOD) | CAP(LEASE) | CAP(AUDIT_WRITE) | CAP(AUDIT_CONTROL);

/* In the order of their numbers in linux/capability.h. */
static const char *const names[] = {
	"CHOWN",
	"DAC_OVERRIDE",
	"DAC_READ_SEARCH",
	"FOWNER",
	"FSETID",
	"KILL",
	"SETGID",
	"SETUID",
	"SETPCAP",
	"LINUX_IMMUTABLE",
	"NET_BIND_SERVICE",
	"NET_BROADCAST",
	"NET_ADMIN",
	"NET_RAW",
	"IPC_LOCK",
	"IPC_OWNER",
	"SYS_MODULE",
	"SYS_RAWIO",
	"SYS_CHROOT",
	"SYS_PTRACE",
	"SYS_PACCT",
	"SYS_ADMIN",
	"SYS_BOOT",
	"SYS_NICE",
	"SYS_RESOURCE",
	"SYS_TIME",
	"SYS_TTY_CONFIG",
	"MKNOD",
	"LEASE",
	"AUDIT_WRITE",
	"AUDIT_CONTROL",
	"SETFCAP",
	"MAC_OVERRIDE",
	"MAC_ADMIN",
	"SYSLOG",
	"WAKE_ALARM",
	"BLOCK_SUSPEND",
	"AUDIT_READ",
	"PERFMON",
	"BPF",
	"CHECKPOINT_RESTORE",
};

_Static_assert(ARRAY_SIZE(names) == CAP_CHECKPOINT_RESTORE + 1, "a capability's name is missing");

const char *container_capability_name(unsigned int cap)
{
	return cap < ARRAY_SIZE(names) ? names[cap] : NULL;
}

int container_parse_capability(const char *name, uint64_t *mask, struct error *err)
{
	const char *bare = strncasecmp(name, "CAP_", 4) == 0 ? name + 4 : name;

	if (strcasecmp(bare, "ALL") == 0) {
		*mask = (UINT64_C(1) << ARRAY_SIZE(names)) - 1;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcasecmp(bare, names[i]) == 0) {
			*mask = UINT64_C(1) << i;
			return 0;
		}
	}
	error_set(err, EINVAL, "'%s' is not a capability", name);
	error_hint(err, "they are named as in capabilities(7), such as NET_ADMIN");
	return -EINVAL;
}

int capabilities_bound(uint64_t mask, struct error *err)
{
	for (unsigned int cap = 0; cap < 64; cap++) {
		if (mask & (UINT64_C(1) << cap))
			continue;
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0)
			continue;
		if (errno == EINVAL)
			break; /* past the last one that this kernel knows */
		return error_sys(err, errno, "drop capability %u from the bounding set", cap);
	}
	return 0;
}

int capabilities_set(uint64_t mask, struct error *err)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	/* Nothing inheritable: a file in the image with inheritable capabilities would give them
	 * back to an ordinary user (CVE-2022-24769). */
	for (int i = 0; i < 2; i++) {
		data[i].effective = data[i].permitted = (uint32_t)(mask >> (32 * i));
		data[i].inheritable = 0;
	}
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ||
	    syscall(SYS_capset, &header, data) < 0)
		return error_sys(err, errno, "set the capabilities");
	return 0;
}
