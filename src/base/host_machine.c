/* Probes of the processor, memory, KVM and the network; see host_probe.h. */
#include "base/host_probe.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* The value of "name<tab>: value" for the first processor; freed by the caller, NULL if absent. */
static char *cpuinfo(const char *name)
{
	autofile FILE *f = fopen("/proc/cpuinfo", "re");
	autofree char *line = NULL;
	size_t room = 0;

	while (f && getline(&line, &room, f) > 1) {
		char *value = strchr(line, ':');

		if (value && str_starts_with(line, name) &&
		    (line[strlen(name)] == '\t' || line[strlen(name)] == ':'))
			return strdup(str_chomp(value + (value[1] == ' ' ? 2 : 1)));
	}
	return NULL;
}

static bool has_flag(const char *flags, const char *flag)
{
	size_t len = strlen(flag);

	for (const char *p = flags; p && (p = strstr(p, flag)); p += len)
		if ((p == flags || p[-1] == ' ') && (p[len] == ' ' || !p[len]))
			return true;
	return false;
}

void probe_cpu(struct host_answer *a)
{
	autofree char *model = cpuinfo("model name");
	/* Room for 8192 processors. */
	size_t size = CPU_ALLOC_SIZE(8192);
	cpu_set_t *set = CPU_ALLOC(8192);
	int all = (int)sysconf(_SC_NPROCESSORS_ONLN);

	if (set && sched_getaffinity(0, size, set) == 0)
		a->number = CPU_COUNT_S(size, set);
	if (set)
		CPU_FREE(set);
	if (a->number && a->number < all)
		host_yes(a, "%d of %d, %.90s", (int)a->number, all, model ? model : "unknown");
	else
		host_yes(a, "%d, %.90s", all, model ? model : "unknown");
}

/* The levels of the x86-64 psABI, in the names of /proc/cpuinfo. */
void probe_cpu_level(struct host_answer *a)
{
	static const char *const levels[][12] = {
		{"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"},
		{"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"},
		{"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
	};
	autofree char *flags = cpuinfo("flags");

	a->number = 1;
	for (size_t l = 0; l < ARRAY_SIZE(levels); l++) {
		for (const char *const *flag = levels[l]; *flag; flag++)
			if (!has_flag(flags, *flag))
				goto out;
		a->number++;
	}
out:
	host_yes(a, "x86-64-v%d", (int)a->number);
}

void probe_memory(struct host_answer *a)
{
	autofile FILE *f = fopen("/proc/meminfo", "re");
	uint64_t total_kib = 0, available_kib = 0;
	char line[128], total[16], available[16];

	while (f && fgets(line, sizeof(line), f)) {
		sscanf(line, "MemTotal: %" SCNu64, &total_kib);
		sscanf(line, "MemAvailable: %" SCNu64, &available_kib);
	}
	a->number = (int64_t)(total_kib * 1024);
	host_yes(a, "%s, of which %s available", format_size(total_kib * 1024, total),
		 format_size(available_kib * 1024, available));
}

void probe_virtualization(struct host_answer *a)
{
	autofree char *flags = cpuinfo("flags");

	if (has_flag(flags, "vmx"))
		host_yes(a, "Intel VT-x");
	else if (has_flag(flags, "svm"))
		host_yes(a, "AMD-V");
	else if (has_flag(flags, "hypervisor"))
		host_no(a, "not offered; this machine is a virtual one");
	else
		host_no(a, "not offered");
}

/* Whether it is fast is for the engine to measure. */
void probe_kvm(struct host_answer *a)
{
	autofd int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int version;

	if (fd < 0) {
		host_no(a, "/dev/kvm: %s", host_why(errno));
		return;
	}
	version = ioctl(fd, KVM_GET_API_VERSION, 0);
	if (version == KVM_API_VERSION)
		host_yes(a, "/dev/kvm opens");
	else
		host_no(a, "/dev/kvm speaks version %d of its interface", version);
}

/* Asks for the generation of the rule set: the smallest question. */
void probe_nftables(struct host_answer *a)
{
	autofd int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	struct {
		struct nlmsghdr header;
		struct nfgenmsg body;
	} ask = {
		.header = {.nlmsg_len = sizeof(ask),
			   .nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN,
			   .nlmsg_flags = NLM_F_REQUEST},
	};
	union {
		struct nlmsghdr header;
		char room[1024];
	} reply;
	struct timeval limit = {.tv_sec = 1};
	ssize_t n;
	int code = 0;

	if (sock < 0 || setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
	    send(sock, &ask, sizeof(ask), 0) < 0) {
		host_no(a, "%s", host_why(errno));
		return;
	}
	n = recv(sock, &reply, sizeof(reply), 0);
	if (n < (ssize_t)sizeof(reply.header))
		code = n < 0 ? errno : EPROTO;
	else if (reply.header.nlmsg_type == NLMSG_ERROR)
		code = -((struct nlmsgerr *)NLMSG_DATA(&reply.header))->error;
	if (code)
		host_no(a, "%s", host_why(code == EINVAL ? ENOSYS : code));
	else
		host_yes(a, "available");
}
