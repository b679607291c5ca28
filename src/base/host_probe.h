/*
 * The probes behind the table in host.c, by what they ask about: host_kernel.c (system calls and
 * security), host_fs.c (mounts), host_machine.c (processor, memory, devices). A probe fills in its
 * answer; it makes no file and no mount that outlives it. Some load a kernel module, as the first
 * use of the feature would.
 */
#pragma once

#include "base/host.h"

#include <sys/types.h>

void host_yes(struct host_answer *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void host_partly(struct host_answer *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void host_no(struct host_answer *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The words for an errno of a probing system call: "not in this kernel", "not permitted"... */
const char *host_why(int code);

/* Whether the kernel is at least this version. */
bool host_kernel_is(int major, int minor);

/* The first line of a small file; "" where it can't be read. Returns buf. */
const char *host_read_line(const char *path, char *buf, size_t size);

/* Runs fn in a child process, for probes that change the process. Returns its value (0..255), or
 * -1. */
int host_in_child(int fn(void));

void probe_kernel(struct host_answer *a);
void probe_capabilities(struct host_answer *a);
void probe_clone_into_cgroup(struct host_answer *a);
void probe_user_namespaces(struct host_answer *a);
void probe_id_ranges(struct host_answer *a);
void probe_time_namespaces(struct host_answer *a);
void probe_pidfd(struct host_answer *a);
void probe_seccomp(struct host_answer *a);
void probe_landlock(struct host_answer *a);
void probe_openat2(struct host_answer *a);
void probe_apparmor(struct host_answer *a);
void probe_selinux(struct host_answer *a);
void probe_userfaultfd(struct host_answer *a);
void probe_pagemap_scan(struct host_answer *a);
void probe_io_uring(struct host_answer *a);

void probe_mount_api(struct host_answer *a);
void probe_idmapped_mounts(struct host_answer *a);
void probe_overlay(struct host_answer *a);
void probe_overlay_idmapped(struct host_answer *a);
void probe_overlay_fds(struct host_answer *a);
void probe_erofs(struct host_answer *a);
void probe_erofs_file(struct host_answer *a);
void probe_loop(struct host_answer *a);
void probe_fuse(struct host_answer *a);

void probe_cpu(struct host_answer *a);
void probe_cpu_level(struct host_answer *a);
void probe_memory(struct host_answer *a);
void probe_virtualization(struct host_answer *a);
void probe_kvm(struct host_answer *a);
void probe_tun(struct host_answer *a);
void probe_vhost_net(struct host_answer *a);
void probe_nftables(struct host_answer *a);
